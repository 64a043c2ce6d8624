package decode

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/blk"
	"github.com/vitrine-vmm/vitrine/devices/virtio/net"
	"github.com/vitrine-vmm/vitrine/devices/virtio/vsock"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
)

// maxOpen bounds the requests that are remembered until their end.
const maxOpen = 1 << 16

// queueLine is an event of a virtqueue, or an interrupt of a chip.
func (d *Decoder) queueLine(l *Line, it *trace.Item) {
	l.RIP = 0
	dev := d.virtio[it.Source]
	if dev == nil {
		l.Text = fmt.Sprintf("IRQ line %d raised", it.Addr)
		l.What = fmt.Sprintf("line %d", it.Addr)
		return
	}
	l.Device = dev.Name
	id := virtio.DeviceID(dev.Virtio)
	l.Queue = d.queueName(it, id)
	switch it.Kind {
	case trace.KindDoorbell:
		l.Text = fmt.Sprintf("%s %s: the driver's notification wakes the device", dev.Name, l.Queue)
	case trace.KindIRQ:
		l.Text = fmt.Sprintf("%s %s: interrupt", dev.Name, l.Queue)
		if int64(it.Addr) < 0 {
			l.Queue, l.Text = "", dev.Name+": interrupt for a configuration change"
		}
	case trace.KindPop:
		d.popped(l, it, id)
	case trace.KindPush:
		d.pushed(l, it, id)
	}
}

func (d *Decoder) queueName(it *trace.Item, id virtio.DeviceID) string {
	n := d.queues[it.Source]
	if it.Addr < 1024 && int(it.Addr) >= n {
		n = int(it.Addr) + 1
		d.queues[it.Source] = n
	}
	if id == virtio.IDNet && d.meta.Virtio == nil && n%2 == 1 {
		n = max(n, 3) // the control queue is behind at least one pair
	}
	return virtio.QueueName(id, int(min(it.Addr, 1<<16)), n)
}

func (d *Decoder) popped(l *Line, it *trace.Item, id virtio.DeviceID) {
	readable, writable := uint32(it.Aux>>32), uint32(it.Aux)
	for _, s := range it.Segments {
		dir := "r"
		if s.Write {
			dir = "w"
		}
		l.Chain = append(l.Chain, fmt.Sprintf("%#x+%d%s", s.Addr, s.Len, dir))
	}
	l.What = ask(id, l.Queue, it.Data, readable, writable)
	l.why = "pop " + id.String()
	l.Text = fmt.Sprintf("%s %s: %s, chain %d [%s]", l.Device, l.Queue, l.What, it.Value, strings.Join(l.Chain, " "))
	if len(d.open) < maxOpen {
		d.open[chainKey{it.Source, it.Addr, it.Value}] = request{it.Time, l.What}
	}
}

// ask is what the driver asks for.
func ask(id virtio.DeviceID, queue string, data []byte, readable, writable uint32) string {
	switch {
	case id == virtio.IDBlock:
		return "blk " + blk.Describe(data, readable, writable)
	case id == virtio.IDVsock && queue == "tx":
		return "vsock " + vsock.Describe(data)
	case id == virtio.IDNet && queue == "control":
		return "net " + net.DescribeControl(data)
	case id == virtio.IDNet && strings.HasPrefix(queue, "transmit"):
		return "net tx " + frame(data, readable)
	case id == virtio.IDConsole && readable > 0:
		return "console " + quoted(data, readable)
	case id == virtio.IDEntropy:
		return fmt.Sprintf("rng wants %d B", writable)
	case id == virtio.IDPmem:
		return "pmem FLUSH"
	case readable == 0:
		return fmt.Sprintf("a buffer of %d B", writable)
	}
	return fmt.Sprintf("%d B to read, %d B to write", readable, writable)
}

func (d *Decoder) pushed(l *Line, it *trace.Item, id virtio.DeviceID) {
	key := chainKey{it.Source, it.Addr, it.Value}
	req, known := d.open[key]
	delete(d.open, key)
	written := uint32(it.Aux)
	l.What = answer(id, l.Queue, it, written)
	l.why = "push " + id.String()
	l.Text = fmt.Sprintf("%s %s: chain %d done, %s", l.Device, l.Queue, it.Value, l.What)
	if known {
		l.Latency = it.Time - req.at
		l.Text += fmt.Sprintf(", %s after it was taken", short(l.Latency))
	}
}

// answer is what the device gives back.
func answer(id virtio.DeviceID, queue string, it *trace.Item, written uint32) string {
	switch {
	case id == virtio.IDBlock && it.Count&0x100 != 0:
		return fmt.Sprintf("%s, %d B written", blk.StatusName(byte(it.Count)), written)
	case id == virtio.IDVsock && queue == "rx" && written > 0:
		return "vsock " + vsock.Describe(it.Data)
	case id == virtio.IDNet && strings.HasPrefix(queue, "receive") && written > 0:
		return "net rx " + frame(it.Data, written)
	case id == virtio.IDConsole && written > 0:
		return "console input " + quoted(it.Data, written)
	}
	return fmt.Sprintf("%d B written", written)
}

// quoted is the beginning of n bytes of text.
func quoted(b []byte, n uint32) string {
	const most = 60
	more := ""
	if len(b) > most || uint32(len(b)) < n {
		more = "…"
		b = b[:min(len(b), most)]
	}
	return fmt.Sprintf("%q%s, %d B", b, more, n)
}

// bytesText is bytes as one writes them in a table of instructions.
func bytesText(b []byte) string {
	s := hex.EncodeToString(b)
	var out strings.Builder
	for i := 0; i < len(s); i += 2 {
		if i > 0 {
			out.WriteByte(' ')
		}
		out.WriteString(s[i : i+2])
	}
	return out.String()
}
