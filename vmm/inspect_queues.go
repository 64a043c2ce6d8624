package vmm

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// queueView is a queue with the chains that wait in it.
type queueView struct {
	virtio.QueueInfo
	Purpose string      `json:"purpose"`
	Pending []chainView `json:"pending,omitempty"`
}

type chainView struct {
	Head        uint16   `json:"head"`
	Descriptors []string `json:"descriptors"`
}

type deviceView struct {
	virtio.Info
	StatusNames []string    `json:"statusNames"`
	Features    []string    `json:"features"`
	Refused     []string    `json:"refused"` // offered, and not taken
	QueueViews  []queueView `json:"queues"`
}

func inspectQueues(m *Machine, q *InspectQuery) (View, error) {
	var b strings.Builder
	var views []deviceView
	for _, info := range m.VirtioDevices() {
		if q.Name != "" && q.Name != info.Name {
			continue
		}
		v := deviceView{Info: info, StatusNames: virtio.StatusNames(info.Status), Features: virtio.FeatureNames(info.ID, info.Negotiated),
			Refused: virtio.FeatureNames(info.ID, info.Offered&^info.Negotiated)}
		for _, qi := range info.Queues {
			v.QueueViews = append(v.QueueViews, m.queueView(&info, qi))
		}
		views = append(views, v)
		v.write(&b)
	}
	if len(views) == 0 && q.Name != "" {
		return View{}, fmt.Errorf("no virtio device %q", q.Name)
	}
	return View{b.String(), views}, nil
}

// maxPending bounds the chains that a view shows of a queue.
const maxPending = 32

func (m *Machine) queueView(info *virtio.Info, qi virtio.QueueInfo) queueView {
	v := queueView{QueueInfo: qi, Purpose: virtio.QueueName(info.ID, qi.Index, len(info.Queues))}
	if !qi.Ready || qi.Size == 0 {
		return v
	}
	for i := qi.NextAvail; i != qi.AvailIdx && len(v.Pending) < maxPending; i++ {
		head, err := m.mem.LoadUint16(memory.Addr(qi.Avail) + 4 + 2*memory.Addr(i%qi.Size))
		if err != nil {
			break
		}
		v.Pending = append(v.Pending, chainView{head, m.descriptors(&qi, head)})
	}
	return v
}

// descriptors are those of a chain, in words (virtio 1.2 §2.7.5). The table is
// the guest's and may say anything.
func (m *Machine) descriptors(qi *virtio.QueueInfo, head uint16) []string {
	const next, write, indirect = 1, 2, 4
	var list []string
	for at := head; len(list) < int(min(qi.Size, 64)); {
		if at >= qi.Size {
			return append(list, fmt.Sprintf("descriptor %d of %d", at, qi.Size))
		}
		p, err := m.mem.Bytes(memory.Addr(qi.Desc)+16*memory.Addr(at), 16)
		if err != nil {
			return append(list, err.Error())
		}
		addr, n := binary.LittleEndian.Uint64(p), binary.LittleEndian.Uint32(p[8:])
		flags, following := binary.LittleEndian.Uint16(p[12:]), binary.LittleEndian.Uint16(p[14:])
		kind := "to read"
		switch {
		case flags&indirect != 0:
			kind = "an indirect table"
		case flags&write != 0:
			kind = "to write"
		}
		list = append(list, fmt.Sprintf("%#x+%d %s", addr, n, kind))
		if flags&next == 0 {
			break
		}
		at = following
	}
	return list
}

func (v *deviceView) write(b *strings.Builder) {
	fmt.Fprintf(b, "%s: virtio %v behind %s, status %s\n", v.Name, v.ID, v.Transport, strings.Join(v.StatusNames, " "))
	fmt.Fprintf(b, "  features %s\n", strings.Join(v.Features, " "))
	if len(v.Refused) > 0 {
		fmt.Fprintf(b, "  offered, not taken: %s\n", strings.Join(v.Refused, " "))
	}
	if v.Error != "" {
		fmt.Fprintf(b, "  the driver broke the protocol: %s\n", v.Error)
	}
	for _, q := range v.QueueViews {
		if !q.Ready {
			fmt.Fprintf(b, "  queue %d (%s): not set up\n", q.Index, q.Purpose)
			continue
		}
		fmt.Fprintf(b, "  queue %d (%s): %d entries; descriptors %#x, available %#x, used %#x\n", q.Index, q.Purpose, q.Size, q.Desc, q.Avail, q.Used)
		fmt.Fprintf(b, "    available index %d, device at %d; used index %d; %d waiting, %d in flight\n",
			q.AvailIdx, q.NextAvail, q.UsedIdx, q.AvailIdx-q.NextAvail, q.InFlight)
		fmt.Fprintf(b, "    %d chains done, woken %d times, %d interrupts, %d suppressed (the driver did not want them)\n",
			q.Pushed, q.Kicks, q.Interrupts, q.SuppressedInterrupts)
		if v.Negotiated&virtio.FeatureEventIdx != 0 {
			fmt.Fprintf(b, "    interrupt wanted past used index %d, notification past available index %d\n", q.UsedEvent, q.AvailEvent)
		}
		for _, c := range q.Pending {
			fmt.Fprintf(b, "    waiting: chain %d [%s]\n", c.Head, strings.Join(c.Descriptors, ", "))
		}
	}
}
