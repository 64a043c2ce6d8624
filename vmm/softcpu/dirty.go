package softcpu

import "github.com/vitrine-vmm/vitrine/vmm/memory"

// dirtyLog has the pages that CPUs have stored to. A page is noted when its
// translation for stores enters a TLB, so while the log is on, those
// translations go whenever it is read.
type dirtyLog struct {
	pages *memory.Dirty // nil: off
	end   memory.Addr
}

func (l *dirtyLog) mark(phys uint64) {
	if l.pages != nil {
		l.pages.Mark(memory.Addr(phys), 1)
	}
}

// SetDirtyLog starts or ends the logging of pages that the guest writes. No
// CPU may be running.
func (vm *VM) SetDirtyLog(on bool) error {
	vm.dirty.pages = nil
	if on {
		vm.dirty.pages = memory.NewDirty(vm.dirty.end)
		vm.protectAll()
	}
	return nil
}

// DirtyPages adds the pages that the guest has written since the last call to
// d. No CPU may be running.
func (vm *VM) DirtyPages(d *memory.Dirty) error {
	pages := vm.dirty.pages
	if pages == nil {
		return nil
	}
	vm.dirty.pages = memory.NewDirty(vm.dirty.end)
	vm.protectAll()
	for _, r := range vm.mem.Regions() {
		for a := r.Base; a < r.End(); a += memory.PageSize {
			if pages.Has(a) {
				d.Mark(a, 1)
			}
		}
	}
	return nil
}

func (vm *VM) protectAll() {
	for _, c := range vm.cpus {
		c.tlb.protectAll()
	}
}
