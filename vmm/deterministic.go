package vmm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/serial"
	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/vmm/softcpu"
)

// What makes a run the same each time (Config.Deterministic), beside the
// software CPU's own part: nothing reaches the guest but between two
// instructions that the guest alone determines. The console's input is there
// before the guest runs, and the UART receives as much of it as has room
// whenever the guest touches the UART. A CPU that rings a device's doorbell
// waits until the device waits for the next ring, and one that sets a device up
// waits until it is ready for the first.

// deterministicClock is what the RTC says without Config.Clock.
func deterministicClock() time.Time { return time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC) }

// maxInput is how long the input of a deterministic machine may be.
const maxInput = 64 << 20

// readInput reads the console's input, if it cannot come by and by.
func (m *Machine) readInput() error {
	if !m.cfg.Deterministic || m.cfg.Console.In == nil {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(m.cfg.Console.In, maxInput+1))
	switch {
	case err != nil:
		return fmt.Errorf("read the console's input: %w", err)
	case len(b) > maxInput:
		return errors.New("the console's input is longer than 64 MiB")
	}
	if s := m.kept.from; s != nil {
		b = b[len(b)-max(min(len(b), savedMoment(s.State.Deterministic).Input), 0):]
	}
	if len(b) > 0 {
		m.input = b
	}
	return nil
}

// moment is what a snapshot of a deterministic machine keeps beside its state.
type moment struct {
	softcpu.Moment
	Input int `json:"input"` // bytes that the console has not received
}

func savedMoment(b []byte) (d moment) {
	_ = json.Unmarshal(b, &d) // beginMoment tells of what is wrong
	return d
}

// moment is nil for a machine that is not deterministic.
func (m *Machine) moment() (json.RawMessage, error) {
	v, ok := m.vm.(softVM)
	if !ok || !m.cfg.Deterministic {
		return nil, nil
	}
	now, err := v.Moment()
	if err != nil {
		return nil, err
	}
	return json.Marshal(moment{*now, len(m.input)})
}

// beginMoment has a machine that is restored go on as the one that was saved:
// nothing tells its guest that it is another.
func (m *Machine) beginMoment(b json.RawMessage) error {
	v, ok := m.vm.(softVM)
	if !ok || b == nil {
		return errors.New("the snapshot is not of a deterministic machine: restore it without --deterministic")
	}
	var d moment
	if err := json.Unmarshal(b, &d); err != nil {
		return fmt.Errorf("deterministic state: %w", err)
	}
	if err := v.SetMoment(&d.Moment); err != nil {
		return err
	}
	if m.gate.state() == gatePause {
		return nil
	}
	if err := m.resumeDevices(); err != nil {
		return err
	}
	m.settleAgain()
	return nil
}

// feedInput is called after an access to a port: the UART receives what it has
// room for. CPUs take turns, so that there is no other call at the time.
func (m *Machine) feedInput(port uint16) {
	if port < portCOM1 || port >= portCOM1+serial.Size {
		return
	}
	m.input = m.input[m.platform.uart.Receive(m.input):]
	if len(m.input) == 0 {
		m.input = nil
	}
}

// guestTime is the time since the machine began, as its instructions make it.
func (m *Machine) guestTime() time.Duration {
	if v, ok := m.vm.(softVM); ok {
		return time.Duration(v.Now())
	}
	return 0
}

// awaited is a doorbell that knows whether its device waits for it.
type awaited interface{ AwaitReady() }

// keepBell notes the doorbell of a queue, if it is an awaited.
func (s *slot) keepBell(queue int) func(virtio.Doorbell, error) (virtio.Doorbell, error) {
	return func(d virtio.Doorbell, err error) (virtio.Doorbell, error) {
		if b, ok := d.(awaited); ok && err == nil {
			if s.bells == nil {
				s.bells = make(map[int]awaited)
			}
			s.bells[queue] = b
		}
		return d, err
	}
}

// settleAgain waits for all devices, which begin to serve again.
func (m *Machine) settleAgain() {
	for _, s := range m.virtio {
		s.settled = false
	}
	m.settle()
}

// settle is called after the guest has written to a device's register: of a
// device that has just begun to serve, all queues are waited for.
func (m *Machine) settle() {
	for _, s := range m.virtio {
		v := s.Inspect()
		live := v.Status&virtio.StatusDriverOK != 0
		if live && !s.settled {
			for _, q := range v.Queues {
				if b := s.bells[q.Index]; b != nil && q.Ready {
					b.AwaitReady()
				}
			}
		}
		s.settled = live
	}
}
