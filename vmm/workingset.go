package vmm

import (
	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/snapshot"
)

// WorkingSet are the pages of the snapshot that this machine was restored from
// which it has in memory by now: what a next one will need too. ok is false for
// a machine that was not restored, and where the host does not tell.
func (m *Machine) WorkingSet() (p snapshot.Pages, ok bool) {
	m.guard.Lock()
	defer m.guard.Unlock()
	k := &m.kept
	if k.origin == nil {
		return p, false
	}
	var at uint64
	regions := m.mem.Regions()
	for i := range regions {
		n := uint64(len(regions[i].Bytes)) / memory.PageSize
		stored, here := k.storedPages(at, n), memory.Present(&regions[i])
		addPages(&p, at, n, func(page uint64) bool { return stored[page] && here[page] })
		at += n
	}
	return p, p.Count() > 0
}
