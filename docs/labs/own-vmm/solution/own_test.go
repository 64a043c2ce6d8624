//go:build linux && amd64

package solution

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	ownvmm "github.com/vitrine-vmm/vitrine/docs/labs/own-vmm"
	"github.com/vitrine-vmm/vitrine/docs/labs/own-vmm/steps"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

func needKVM(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/dev/kvm"); err != nil {
		t.Skip("SKIP-NO-KVM: /dev/kvm is missing; the own-vmm exercise needs it")
	}
}

func TestGuestOfTheSolution(t *testing.T) {
	needKVM(t)
	for i, s := range steps.All() {
		if err := steps.Check(i+1, new(VMM)); err != nil {
			t.Errorf("step %d, %s: %v", i+1, s.Title, err)
		}
	}
}

// until is a VMM of which the learner has written the steps below n.
type until struct {
	*VMM
	n    int
	mine ownvmm.VMM
}

func (u *until) Open() error {
	if u.n <= 1 {
		return u.mine.Open()
	}
	return u.VMM.Open()
}

func (u *until) AddMemory(size uint64) error {
	if u.n <= 2 {
		return u.mine.AddMemory(size)
	}
	return u.VMM.AddMemory(size)
}

func (u *until) AddCPU() error {
	if u.n <= 3 {
		return u.mine.AddCPU()
	}
	return u.VMM.AddCPU()
}

func (u *until) Run() error {
	if u.n <= 4 {
		return u.mine.Run()
	}
	return u.VMM.Run()
}

func (u *until) LongMode(entry uint64) error {
	if u.n <= 5 {
		return u.mine.LongMode(entry)
	}
	return u.VMM.LongMode(entry)
}

func (u *until) Serial(w io.Writer) {
	if u.n > 6 {
		u.VMM.Serial(w)
	}
}

func (u *until) LoadLinux(kernel io.ReaderAt, line string) (uint64, error) {
	if u.n <= 7 {
		return u.mine.LoadLinux(kernel, line)
	}
	return u.VMM.LoadLinux(kernel, line)
}

func (u *until) Boot(entry uint64) error { return u.mine.Boot(entry) }

// TestSkeletonSaysWhatIsMissing: at each step a learner who has done those
// before it is told what this one wants.
func TestSkeletonSaysWhatIsMissing(t *testing.T) {
	for i, want := range []string{
		"step 1 is not written yet: open /dev/kvm",
		"step 2 is not written yet: make memory",
		"step 3 is not written yet: make a CPU",
		"step 4 is not written yet: a loop",
		"step 5 is not written yet: write page tables",
		"nothing has come out of COM1",
		"step 7 is not written yet: copy the PT_LOAD segments",
		"step 8 is not written yet: long mode at the kernel's entry",
	} {
		n := i + 1
		if n > 1 {
			needKVM(t)
		}
		err := steps.Check(n, &until{VMM: new(VMM), n: n})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("step %d: %v; want %q", n, err, want)
		}
	}
}

// The mistakes are made on purpose, each by a type that gets one thing wrong.
type (
	leaky    struct{ *VMM } // does not close
	noVM     struct{ *VMM } // opens /dev/kvm alone
	unmapped struct{ *VMM } // memory that the VM does not know
	tolerant struct{ *VMM } // loads what does not fit
	reset    struct{ *VMM } // begins where a processor does
	short    struct{ *VMM } // a code segment without L
	mute     struct{ *VMM } // a UART that is never ready
	garbled  struct{ *VMM } // a UART that sends something else
	deaf     struct{ *VMM } // a UART that does not pass on its writer's error
	blind    struct{ *VMM } // boot_params without memory
)

func (leaky) Close() error { return nil }

func (v noVM) Open() error {
	if err := v.VMM.Open(); err != nil {
		return err
	}
	err := v.vm.Close()
	v.vm = nil
	return err
}

func (v unmapped) AddMemory(size uint64) (err error) {
	v.mem, err = memory.New(size)
	return err
}

func (v tolerant) Load(data []byte, at uint64) error {
	_ = v.VMM.Load(data, at)
	return nil
}

func (v reset) AddCPU() error {
	if err := v.VMM.AddCPU(); err != nil {
		return err
	}
	s, err := v.cpu.Sregs()
	if err != nil {
		return err
	}
	s.CS.Selector = 0xf000
	return v.cpu.SetSregs(&s)
}

func (v short) LongMode(entry uint64) error {
	if err := v.VMM.LongMode(entry); err != nil {
		return err
	}
	s, err := v.cpu.Sregs()
	if err != nil {
		return err
	}
	s.CS.L, s.CS.DB = 0, 1
	return v.cpu.SetSregs(&s)
}

type muteUART struct{ *uart }

func (muteUART) Read(_ uint16, p []byte) error { clear(p); return nil }

func (v mute) Serial(w io.Writer) { v.Attach(com1, com1+7, muteUART{&uart{w}}) }

type shifted struct{ w io.Writer }

func (s shifted) Write(p []byte) (int, error) {
	return s.w.Write([]byte{p[0] + 1})
}

func (v garbled) Serial(w io.Writer) { v.VMM.Serial(shifted{w}) }

type careless struct{ w io.Writer }

func (c careless) Write(p []byte) (int, error) {
	_, _ = c.w.Write(p)
	return len(p), nil
}

func (v deaf) Serial(w io.Writer) { v.VMM.Serial(careless{w}) }

func (v blind) LoadLinux(kernel io.ReaderAt, line string) (uint64, error) {
	entry, err := v.VMM.LoadLinux(kernel, line)
	return entry, errors.Join(err, v.Load([]byte{0}, steps.BootParams+0x1e8))
}

func TestGuestsWithMistakes(t *testing.T) {
	needKVM(t)
	for _, c := range []struct {
		step int
		v    func(*VMM) steps.VMM
		want string
	}{
		{1, func(v *VMM) steps.VMM { return noVM{v} }, "there must be a VM"},
		{1, func(v *VMM) steps.VMM { return leaky{v} }, "Close must close the VM and /dev/kvm"},
		{2, func(v *VMM) steps.VMM { return tolerant{v} }, "Load must refuse what reaches past the end"},
		{3, func(v *VMM) steps.VMM { return unmapped{v} }, "is the memory shown to the VM"},
		{3, func(v *VMM) steps.VMM { return reset{v} }, "CS must be 0, and is 0xf000"},
		{5, func(v *VMM) steps.VMM { return short{v} }, "the CPU executes 32-bit code"},
		{6, func(v *VMM) steps.VMM { return mute{v} }, "must say that the transmitter is free"},
		{6, func(v *VMM) steps.VMM { return deaf{v} }, "Run must end when the console's writer fails"},
		{6, func(v *VMM) steps.VMM { return garbled{v} }, `COM1 must send "ready", and sent "sfbez"`},
		{7, func(v *VMM) steps.VMM { return blind{v} }, "the E820 map is empty"},
	} {
		own := new(VMM)
		v := c.v(own)
		err := steps.Check(c.step, v)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("step %d, %s: %v; want %q", c.step, fmt.Sprintf("%T", v), err, c.want)
		}
		if err := own.Close(); err != nil {
			t.Error(err)
		}
	}
}
