// Package decode puts a machine's events into words: which register of which
// device, what a request asks for, what a frame carries. It needs only what the
// stream of events says of the machine, so that a recording can be read
// anywhere.
package decode

import (
	"fmt"
	"strings"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/acpipm"
	"github.com/vitrine-vmm/vitrine/devices/debugport"
	"github.com/vitrine-vmm/vitrine/devices/i8042"
	"github.com/vitrine-vmm/vitrine/devices/pvpanic"
	"github.com/vitrine-vmm/vitrine/devices/rtc"
	"github.com/vitrine-vmm/vitrine/devices/serial"
	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/vmm/symbols"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
)

// Line is an event in words.
type Line struct {
	Time    time.Duration `json:"time"`
	Since   time.Duration `json:"since"` // the event before
	Source  string        `json:"source"`
	CPU     int           `json:"cpu"` // -1: none
	Kind    string        `json:"kind"`
	Device  string        `json:"device,omitempty"`
	What    string        `json:"what"`               // the register, the request…
	Meaning string        `json:"meaning,omitempty"`  // of its value
	Queue   string        `json:"queue,omitempty"`    // of a virtqueue's event
	Addr    uint64        `json:"addr"`               // see trace.Event
	Value   uint64        `json:"value"`              //
	Size    uint8         `json:"size,omitempty"`     //
	Write   bool          `json:"write,omitempty"`    //
	Took    time.Duration `json:"took,omitempty"`     // in the VMM
	RIP     uint64        `json:"rip,omitempty"`      //
	Symbol  string        `json:"symbol,omitempty"`   // of RIP
	Latency time.Duration `json:"latency,omitempty"`  // a request's, from Pop to Push
	Data    []byte        `json:"data,omitempty"`     //
	Chain   []string      `json:"segments,omitempty"` // descriptors
	Text    string        `json:"text"`               // everything but time, source and RIP

	Instruction *Instruction `json:"instruction,omitempty"`

	cr3     uint64 // what an instruction has set CR3 to
	why     string // the key of its explanation
	early   bool   // of an instruction that is yet to be executed: no texts, no time
	unnamed bool   // nobody knows the symbol
}

// accessor names an access to a device.
type accessor interface {
	Access(off uint64, size uint8, write bool, value uint64) (register, meaning string)
}

// Decoder turns a machine's items into lines. It remembers what selectors say
// and which requests are under way, so it must be given the items in order.
type Decoder struct {
	meta    *trace.Meta
	symbols *symbols.Table
	access  []accessor // by device
	virtio  map[uint16]*trace.Device
	queues  map[uint16]int // how many, by source: as far as seen
	open    map[chainKey]request
	last    time.Duration

	// Of instructions: see text.go.
	names names
	codes *codes
	in    trace.Instruction
	text  []byte
}

type chainKey struct {
	source uint16
	queue  uint64
	head   uint64
}

type request struct {
	at   time.Duration
	what string
}

// New returns a decoder for the machine that meta describes. table may be nil.
func New(meta *trace.Meta, table *symbols.Table) *Decoder {
	d := &Decoder{meta: meta, symbols: table, names: names{table: table}, codes: new(codes), virtio: make(map[uint16]*trace.Device),
		queues: make(map[uint16]int), open: make(map[chainKey]request)}
	for i := range meta.Devices {
		dev := &meta.Devices[i]
		d.access = append(d.access, accessorOf(dev, meta))
		if dev.Virtio != 0 && dev.Source >= 0 {
			d.virtio[uint16(dev.Source)] = dev
			if spec, ok := meta.Virtio[dev.Name]; ok {
				d.queues[uint16(dev.Source)] = len(spec.QueueMax)
			}
		}
	}
	return d
}

func accessorOf(dev *trace.Device, meta *trace.Meta) accessor {
	switch dev.Type {
	case "serial":
		return new(serial.Decoder)
	case "i8042":
		return new(i8042.Decoder)
	case "rtc":
		return new(rtc.Decoder)
	case "debugport":
		return debugport.Decoder{}
	case "pvpanic":
		return pvpanic.Decoder{}
	case "acpi":
		return acpipm.Decoder{}
	case "pci-ports":
		return pciPorts{meta}
	case "pci-ecam":
		return pciECAM{meta}
	case "virtio-mmio", "virtio-pci":
		return &virtio.Decoder{ID: virtio.DeviceID(dev.Virtio), PCI: dev.Type == "virtio-pci"}
	}
	return nothing{}
}

type nothing struct{}

func (nothing) Access(uint64, uint8, bool, uint64) (string, string) { return "", "" }

// Line puts an item into words.
func (d *Decoder) Line(it *trace.Item) Line {
	l := Line{Time: it.Time, Since: it.Time - d.last, CPU: -1, Kind: it.Kind.String(), Addr: it.Addr, Value: it.Value,
		Size: it.Size, Write: it.Write, Took: it.Took, RIP: it.RIP, Data: it.Data, why: it.Kind.String()}
	d.last = it.Time
	if it.CPU != trace.NoCPU {
		l.CPU = int(it.CPU)
	}
	l.Source = d.source(it)
	switch it.Kind {
	case trace.KindIO, trace.KindMMIO:
		d.accessLine(&l, it)
	case trace.KindPop, trace.KindPush, trace.KindDoorbell, trace.KindIRQ:
		d.queueLine(&l, it)
	case trace.KindInstruction:
		d.instructionLine(&l, it)
	default:
		cpuLine(&l, it)
	}
	l.Symbol = d.symbols.Name(l.RIP)
	return l
}

// accessLine is an access to a device.
func (d *Decoder) accessLine(l *Line, it *trace.Item) {
	index, off := it.Device()
	if int64(index) < int64(len(d.access)) {
		dev := &d.meta.Devices[index]
		l.Device, l.why = dev.Name, l.Kind+" "+dev.Type
		l.What, l.Meaning = d.access[index].Access(uint64(off), it.Size, it.Write, it.Value)
	} else {
		l.Meaning, l.why = "nothing there", "nowhere"
		if name := legacyPorts[it.Addr]; name != "" && it.Kind == trace.KindIO {
			l.Meaning = name
		}
	}
	if it.Count > 1 {
		l.what("%d accesses", it.Count)
		l.Meaning = fmt.Sprintf("%q", it.Data)
	}
	verb, arrow := "read", "→"
	switch {
	case it.Kind == trace.KindIO && it.Write:
		verb, arrow = "out", "←"
	case it.Kind == trace.KindIO:
		verb = "in"
	case it.Write:
		verb, arrow = "write", "←"
	}
	value := fmt.Sprintf("%#x", it.Value)
	meaning := l.Meaning
	if strings.HasPrefix(meaning, "'") || it.Count > 1 {
		value, meaning = meaning, "" // a character stands for itself
	}
	name := strings.TrimSpace(l.Device + " " + l.What)
	if name != "" && meaning != "" {
		name += ": "
	}
	l.Text = fmt.Sprintf("%s %s %#x %s %s (%s)", strings.ToUpper(l.Kind), verb, it.Addr, arrow, value, name+meaning)
	if l.What == "" && l.Device != "" {
		l.Text += fmt.Sprintf(" +%#x", off)
	}
}

func (l *Line) what(format string, a ...any) {
	l.What = strings.TrimSpace(l.What + " " + fmt.Sprintf(format, a...))
}

// legacyPorts are ports of a PC that kernels try and that no device has here,
// or that the accelerator's own chips have.
var legacyPorts = map[uint64]string{
	0x20: "PIC 1 command", 0x21: "PIC 1 mask", 0xa0: "PIC 2 command", 0xa1: "PIC 2 mask", 0x4d0: "PIC edge/level 1", 0x4d1: "PIC edge/level 2",
	0x40: "PIT channel 0", 0x41: "PIT channel 1", 0x42: "PIT channel 2", 0x43: "PIT control", 0x61: "PIT speaker gate",
	0x80: "POST code, used for a delay", 0xed: "delay", 0x2f8: "COM2", 0x3e8: "COM3", 0x2e8: "COM4", 0x3f2: "floppy", 0x92: "A20 gate",
	0x1f0: "ATA", 0x170: "ATA 2", 0x3d4: "VGA index", 0x3d5: "VGA data", 0xcf8: "PCI configuration address, no PCI here", 0xcfc: "PCI configuration data, no PCI here",
}

// String is the line as a terminal shows it.
func (l *Line) String() string {
	b := append(appendHead(nil, l.Time, l.Source, l.Since), l.Text...)
	if l.RIP != 0 && l.Instruction == nil {
		b = appendHex(append(b, "  rip="...), l.RIP)
		if l.Symbol != "" {
			b = append(append(b, ' '), l.Symbol...)
		}
	}
	if l.Took != 0 {
		b = appendTook(b, l.Took)
	}
	return string(b)
}

// short is a duration with three or four digits.
func short(d time.Duration) string { return string(appendShort(nil, d)) }
