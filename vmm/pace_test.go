package vmm

import (
	"errors"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// clockedCPU is a CPU of which only the time-stamp counter can be asked.
type clockedCPU struct {
	VCPU
	now uint64
	err error
}

func (c *clockedCPU) MSRs(...uint32) ([]x86.MSR, error) {
	return []x86.MSR{{Index: x86.MSRTSC, Data: c.now}}, c.err
}
func (c *clockedCPU) TSCkHz() uint32         { return 1000 } // a tick is a microsecond
func (c *clockedCPU) SetTSCkHz(uint32) error { return nil }

// A deadline that follows a tick is put off by a multiple of what the tick has
// taken; all others are as the guest wants them.
func TestPace(t *testing.T) {
	type write struct{ now, deadline, want uint64 }
	for _, c := range []struct {
		name   string
		writes []write
	}{
		{"the first", []write{{now: 100, deadline: 200, want: 200}}},
		{"before the last has passed", []write{{100, 5000, 5000}, {300, 400, 400}}},
		{"after a tick of 1 ms", []write{{0, 4000, 4000}, {5000, 8000, 5000 + 9*1000}}},
		{"far enough anyway", []write{{0, 4000, 4000}, {5000, 90_000, 90_000}}},
		{"after a tick put off", []write{{0, 4000, 4000}, {5000, 8000, 14_000}, {14_200, 18_000, 18_000}, {19_000, 20_000, 28_000}}},
		{"after a tick that waited for a processor", []write{{0, 4000, 4000}, {500_000, 504_000, 500_000 + 9*6000}}},
		{"disarmed", []write{{0, 4000, 4000}, {5000, 0, 0}, {9000, 9100, 9100}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cpu := new(clockedCPU)
			v := &vcpu{cpu: cpu}
			for i, w := range c.writes {
				cpu.now = w.now
				if got := v.pace(w.deadline); got != w.want {
					t.Errorf("write %d: %d, want %d", i, got, w.want)
				}
			}
		})
	}
}

// Without the time nothing is put off.
func TestPaceWithoutClock(t *testing.T) {
	cpu := &clockedCPU{now: 5000}
	v := &vcpu{cpu: cpu}
	v.pace(1000)
	cpu.err = errors.New("no such register")
	if got := v.pace(6000); got != 6000 {
		t.Errorf("%d, want 6000", got)
	}
}
