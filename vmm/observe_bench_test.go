package vmm

import (
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/bus"
	"github.com/vitrine-vmm/vitrine/devices/serial"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// standIn is a CPU that has registers and nothing else.
type standIn struct {
	VCPU
	regs x86.Regs
}

func (s *standIn) Regs() (x86.Regs, error) { return s.regs, nil }

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// exitsAtCOM1 is a CPU whose guest writes to a serial port.
func exitsAtCOM1(tb testing.TB) (*vcpu, *x86.Exit) {
	m := &Machine{pio: bus.New(), mmio: bus.New()}
	uart := serial.New(discard{}, func() error { return nil })
	if err := m.pio.Map(bus.Range{Base: portCOM1, Size: serial.Size, Name: "COM1"}, uart); err != nil {
		tb.Fatal(err)
	}
	return &vcpu{m: m, cpu: &standIn{regs: x86.Regs{RIP: 0x1000}}},
		&x86.Exit{Reason: x86.ExitIO, Write: true, Size: 1, Count: 1, Port: portCOM1 + 7, Data: []byte{'H'}}
}

func (m *Machine) testObserver() *cpuObserver {
	s := trace.NewSession(1<<16, "vcpu0")
	s.Devices = m.tracedDevices()
	return &cpuObserver{observer: observer{s, s.Sources[0].Ring, 0}, index: deviceIndex(s.Devices)}
}

// An exit that is traced allocates nothing.
func TestTracedExitDoesNotAllocate(t *testing.T) {
	c, x := exitsAtCOM1(t)
	o := c.m.testObserver()
	if n := testing.AllocsPerRun(1000, func() { c.observedDispatch(o, x) }); n != 0 {
		t.Errorf("%v allocations an event", n)
	}
}

// BenchmarkExit is what the run loop does for an exit beside running the
// guest: without a trace, with one, and what is kept at all times.
func BenchmarkExit(b *testing.B) {
	c, x := exitsAtCOM1(b)
	b.Run("off", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if o := c.observer.Load(); o != nil {
				b.Fatal("observed")
			}
			c.dispatch(x)
			c.recent.note(x)
		}
	})
	b.Run("bare", func(b *testing.B) { // as it would be without any tracing
		for b.Loop() {
			c.dispatch(x)
		}
	})
	b.Run("on", func(b *testing.B) {
		o := c.m.testObserver()
		b.ReportAllocs()
		for b.Loop() {
			c.observedDispatch(o, x)
		}
	})
}
