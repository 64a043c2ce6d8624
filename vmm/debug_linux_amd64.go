package vmm

import (
	"runtime"

	"github.com/vitrine-vmm/vitrine/vmm/kvm"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// WatchpointsWork says whether a guest stops at a watchpoint here: some hosts
// accept the debug registers and never look at them. A guest of two
// instructions finds out.
func (v kvmVM) WatchpointsWork() bool {
	works := make(chan bool)
	go func() { // a thread of its own for the CPU
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		works <- tryWatchpoint(v.sys) == nil
	}()
	return <-works
}

func tryWatchpoint(sys *kvm.System) (err error) {
	const code, watched = 0x1000, 0x2000
	mem, err := memory.New(64 << 10)
	if err != nil {
		return err
	}
	defer mem.Close()
	if err := mem.WriteAt([]byte{0xa2, watched & 0xff, watched >> 8, 0xe6, 0x80}, code); err != nil { // mov [watched], al; out 0x80, al
		return err
	}
	vm, err := sys.CreateVM()
	if err != nil {
		return err
	}
	defer vm.Close()
	if err := vm.MapMemory(mem); err != nil {
		return err
	}
	c, err := vm.CreateVCPU(0, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := c.Sregs()
	if err != nil {
		return err
	}
	s.CS.Base, s.CS.Selector = 0, 0
	if err := c.SetSregs(&s); err != nil {
		return err
	}
	if err := c.SetRegs(&x86.Regs{RIP: code, RFLAGS: x86.Flag1}); err != nil {
		return err
	}
	const local, write = 1 << 1, 1 << 16
	if err := c.SetGuestDebug(debugEnable|debugHardware, [4]uint64{watched}, local|write); err != nil {
		return err
	}
	for {
		x, err := c.Run()
		switch {
		case err != nil:
			return err
		case x.Reason == x86.ExitDebug:
			return nil
		case x.Reason != x86.ExitInterrupted:
			return errNoWatchpoint
		}
	}
}
