package softcpu

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// saved is a machine of one CPU as a file would have it.
type saved struct {
	Clock  uint64
	Chips  x86.Chips
	Regs   x86.Regs
	Sregs  x86.Sregs
	Events x86.Events
	Debug  x86.DebugRegs
	MP     x86.MPState
	LAPIC  x86.LAPIC
	MSRs   []x86.MSR
	XCR0   uint64
	XSave  []byte
}

// must2 is what an accessor returned.
func must2[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (b *bare) save() (s saved) {
	b.t.Helper()
	v := b.cpu[0]
	s.Clock = must2[uint64](b.t)(b.vm.Clock())
	s.Chips = must2[x86.Chips](b.t)(b.vm.Chips())
	s.Regs = b.get()
	s.Sregs = must2[x86.Sregs](b.t)(v.Sregs())
	s.Events = must2[x86.Events](b.t)(v.Events())
	s.Debug = must2[x86.DebugRegs](b.t)(v.DebugRegs())
	s.MP = must2[x86.MPState](b.t)(v.MPState())
	s.LAPIC = must2[x86.LAPIC](b.t)(v.LAPIC())
	s.MSRs = must2[[]x86.MSR](b.t)(v.KnownMSRs(must2[[]uint32](b.t)(b.vm.StateMSRs())))
	s.XCR0 = must2[uint64](b.t)(v.XCR0())
	s.XSave = make([]byte, b.vm.XSaveSize())
	if err := v.XSave(s.XSave); err != nil {
		b.t.Fatal(err)
	}
	return s
}

func (b *bare) restore(s *saved) {
	b.t.Helper()
	v := b.cpu[0]
	for i, err := range []error{b.vm.SetClock(s.Clock), b.vm.SetChips(&s.Chips), v.SetSregs(&s.Sregs), v.SetRegs(&s.Regs),
		v.SetXCR0(s.XCR0), v.SetXSave(s.XSave), v.SetDebugRegs(&s.Debug), v.SetLAPIC(&s.LAPIC), v.SetMSRs(s.MSRs),
		v.SetMPState(s.MP), v.SetEvents(&s.Events)} {
		if err != nil {
			b.t.Fatalf("step %d: %v", i, err)
		}
	}
}

// TestSavedMachineGoesOnTheSame saves a deterministic machine, through JSON,
// in the middle of timers and interrupts, and runs it and its restored copy to
// the end: both do the same at the same times.
func TestSavedMachineGoesOnTheSame(t *testing.T) {
	for _, at := range []int{1, 4, 9, 17, 26} {
		b := newBare(t, Options{Deterministic: true}, 1)
		b.code(bareCode, timersAndIPIs)
		b.code(0xb000, timerHandler)
		b.put64(bareIDT+16*0x50, 0xb000|selCode<<16|0x8e<<40)
		b.start(0, bareCode, nil)
		for range at {
			b.run()
		}
		if err := b.cpu[0].Kick(); err != nil { // the last access is to be complete
			t.Fatal(err)
		}
		if x := b.run(); x.Reason != x86.ExitInterrupted {
			t.Fatalf("exit %v, want a kick", x.Reason)
		}
		s := b.save()
		doc, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var again saved
		if err := json.Unmarshal(doc, &again); err != nil {
			t.Fatal(err)
		}
		other := newBare(t, Options{Deterministic: true}, 1)
		copy(other.ram, b.ram)
		other.restore(&again)
		if got := other.save(); !reflect.DeepEqual(got, s) {
			t.Errorf("saved %+v\nrestored %+v", s, got)
		}
		want, got := b.rest(), other.rest()
		if len(want) < 5 || fmt.Sprint(want) != fmt.Sprint(got) {
			t.Errorf("saved after %d exits: went on\n%q, restored\n%q", at, want, got)
		}
	}
}

// rest is the exits to the end of the program, with their times.
func (b *bare) rest() (list []string) {
	for {
		x := b.run()
		list = append(list, fmt.Sprintf("%v %#x % x at %d", x.Reason, x.Port, x.Data, b.vm.now()))
		if x.Reason != x86.ExitIO || x.Port == 0xe4 || len(list) > 1000 {
			return list
		}
	}
}

func TestAPICModeIsRestored(t *testing.T) {
	b := newBare(t, Options{}, 1)
	v := b.cpu[0]
	b.start(0, bareCode, nil)
	if err := v.SetMSRs([]x86.MSR{{Index: x86.MSRAPICBase, Data: apicBaseReset | apicBaseEnable | apicBaseX2}}); err != nil {
		t.Fatal(err)
	}
	s := b.save()
	other := newBare(t, Options{}, 1)
	other.restore(&s)
	if id, err := other.cpu[0].MSRs(0x802); err != nil || id[0].Data != 0 {
		t.Errorf("x2APIC registers after a restore: %v, %v", id, err)
	}
}

func TestOtherTSCRateIsRefused(t *testing.T) {
	b := newBare(t, Options{}, 1)
	if err := b.cpu[0].SetTSCkHz(b.cpu[0].TSCkHz()); err != nil {
		t.Error(err)
	}
	if err := b.cpu[0].SetTSCkHz(2_500_000); err == nil {
		t.Error("took a rate that it does not have")
	}
}
