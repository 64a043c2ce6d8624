//go:build linux && amd64

package kvm

import (
	"errors"
	"fmt"
	"sync"

	gokvm "github.com/bobuhiro11/gokvm/kvm"
	"golang.org/x/sys/unix"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// Addresses that Intel hosts need for themselves while a guest is in real mode
// (api.rst 4.33, 4.39): three pages for a task-state segment and one for an
// identity-mapping page table, below the firmware's place and above MMIO.
const (
	identityMapAddr = 0xfffbc000
	tssAddr         = 0xfffbd000
)

// VM is a virtual machine: KVM's interrupt controllers (PIC, I/O APIC, local
// APICs) and PIT included.
type VM struct {
	fd       int
	mmapSize int
	hasSync  bool
	sys      *System

	mu      sync.Mutex
	slots   []gokvm.UserspaceMemoryRegion
	routes  []route      // message-signalled interrupts: GSI firstMSI+index
	fds     []int        // event fds to close
	bells   []*eventBell // doorbells to close
	scratch struct {
		chip  gokvm.IRQChip
		pit   gokvm.PITState2
		clock gokvm.ClockData
		ident uint64
	}
}

// CreateVM makes a virtual machine without memory, interrupt controllers and CPUs.
func (s *System) CreateVM() (*VM, error) {
	var fd uintptr
	err := retryInterrupted(func() (err error) {
		fd, err = gokvm.CreateVM(uintptr(s.fd))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("KVM_CREATE_VM: %w", err)
	}
	vm := &VM{fd: int(fd), mmapSize: s.mmapSize, sys: s, hasSync: s.Check(CapSyncRegs) != 0}
	if err := vm.setUp(); err != nil {
		_ = vm.Close()
		return nil, err
	}
	return vm, nil
}

// retryInterrupted repeats a call that a signal cut short. Go's runtime sends
// signals to its own threads at any time, and creating a VM is long enough to
// meet one.
func retryInterrupted(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (vm *VM) setUp() error {
	if err := gokvm.SetTSSAddr(uintptr(vm.fd), tssAddr); err != nil {
		return fmt.Errorf("KVM_SET_TSS_ADDR: %w", err)
	}
	vm.scratch.ident = identityMapAddr
	if _, err := ioctlPtr(vm.fd, ioSetIdentityMapAddr, &vm.scratch.ident); err != nil {
		return fmt.Errorf("KVM_SET_IDENTITY_MAP_ADDR: %w", err)
	}
	return nil
}

// MapMemory gives every region of g a memory slot, and then the machine its
// interrupt controllers and PIT. It comes before CPUs, lines and doorbells.
//
// The order is worth 5 to 14 ms: KVM_SET_USER_MEMORY_REGION waits for the
// readers of the old table of slots (synchronize_srcu_expedited in
// virt/kvm/kvm_main.c). With nothing else on its way that takes microseconds.
// But each device that KVM puts on its own buses, an interrupt controller or an
// ioeventfd, leaves an old table of the bus to be freed after the same readers
// in its own time, several ticks, and the wait is for that then.
func (vm *VM) MapMemory(g *memory.Guest) error {
	for _, r := range g.Regions() {
		region := gokvm.UserspaceMemoryRegion{
			Slot:          uint32(len(vm.slots)),
			GuestPhysAddr: uint64(r.Base),
			MemorySize:    uint64(len(r.Bytes)),
			UserspaceAddr: hostAddress(r.Bytes),
		}
		if r.ReadOnly {
			region.SetMemReadonly()
		}
		vm.slots = append(vm.slots, region)
		if err := gokvm.SetUserMemoryRegion(uintptr(vm.fd), &vm.slots[len(vm.slots)-1]); err != nil {
			return fmt.Errorf("KVM_SET_USER_MEMORY_REGION %#x+%#x: %w", uint64(r.Base), len(r.Bytes), err)
		}
	}
	return vm.addChips()
}

func (vm *VM) addChips() error {
	if err := retryInterrupted(func() error { return gokvm.CreateIRQChip(uintptr(vm.fd)) }); err != nil {
		return fmt.Errorf("KVM_CREATE_IRQCHIP: %w", err)
	}
	if err := retryInterrupted(func() error { return gokvm.CreatePIT2(uintptr(vm.fd)) }); err != nil {
		return fmt.Errorf("KVM_CREATE_PIT2: %w", err)
	}
	return nil
}

// SetDirtyLog starts or ends the logging of written pages in all slots.
func (vm *VM) SetDirtyLog(on bool) error {
	for i := range vm.slots {
		if vm.slots[i].Flags&memReadonly != 0 {
			continue
		}
		vm.slots[i].Flags &^= memLogDirty
		if on {
			vm.slots[i].SetMemLogDirtyPages()
		}
		if err := gokvm.SetUserMemoryRegion(uintptr(vm.fd), &vm.slots[i]); err != nil {
			return fmt.Errorf("KVM_SET_USER_MEMORY_REGION slot %d: dirty log: %w", i, err)
		}
	}
	return nil
}

// Memory slot flags (KVM_MEM_*).
const (
	memLogDirty = 1 << 0
	memReadonly = 1 << 1
)

// DirtyPages adds the pages that the guest has written since the last call to d.
func (vm *VM) DirtyPages(d *memory.Dirty) error {
	for i := range vm.slots {
		s := &vm.slots[i]
		if s.Flags&memLogDirty == 0 {
			continue
		}
		if err := dirtyLog(vm.fd, uint32(i), s.GuestPhysAddr, s.MemorySize, d); err != nil {
			return fmt.Errorf("KVM_GET_DIRTY_LOG slot %d: %w", i, err)
		}
	}
	return nil
}

// Close releases the machine. Its vCPUs must be closed first.
func (vm *VM) Close() error {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	for _, b := range vm.bells {
		_ = b.f.Close()
	}
	for _, fd := range vm.fds {
		_ = unix.Close(fd)
	}
	vm.bells, vm.fds = nil, nil
	return unix.Close(vm.fd)
}
