package vmm

import (
	"slices"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/snapshot"
)

// takeMemory writes guest memory: all that is not zero, or what has changed
// since the base.
func (s *saving) takeMemory() error {
	k := &s.m.kept
	regions := s.m.mem.Regions()
	parts := make([]snapshot.Part, len(regions))
	var at uint64
	for i := range regions {
		r := &regions[i]
		parts[i] = snapshot.Part{Bytes: r.Bytes, Offset: at}
		saved := snapshot.Region{Base: uint64(r.Base), Size: uint64(len(r.Bytes)), Kind: r.Kind, ReadOnly: r.ReadOnly, Offset: at}
		switch {
		case i == s.m.imageRegion():
			saved.Image = k.image
		case r.Kind != memory.RAM:
			saved.External = true
		}
		s.state.Memory = append(s.state.Memory, saved)
		at += saved.Size
	}
	var holdings [][]memory.Holding
	if s.base == nil || !k.knows(s.base.ID) {
		for i := range regions {
			holdings = append(holdings, memory.Holdings(&regions[i]))
		}
	}
	if err := s.m.noteChanges(); err != nil {
		return err
	}
	var pages snapshot.Pages
	for i := range regions {
		first := parts[i].Offset / memory.PageSize
		switch {
		case s.state.Memory[i].External:
		case holdings == nil:
			changed := k.changes(s.base.ID)
			addPages(&pages, first, uint64(len(regions[i].Bytes))/memory.PageSize, func(p uint64) bool {
				return changed.Has(regions[i].Base + memory.Addr(p*memory.PageSize))
			})
		case s.base != nil:
			addPages(&pages, first, uint64(len(holdings[i])), func(p uint64) bool { return holdings[i][p] == memory.HoldsOwn })
		default:
			s.addHeld(&pages, first, i == s.m.imageRegion(), holdings[i])
		}
	}
	if err := s.w.WriteMemory(parts, &pages, s.base != nil); err != nil {
		return err
	}
	return s.track(holdings)
}

// addPages adds the pages of n that take says yes to; first is where they
// begin in the memory file.
func addPages(pages *snapshot.Pages, first, n uint64, take func(p uint64) bool) {
	for p := uint64(0); p < n; p++ {
		if !take(p) {
			continue
		}
		from := p
		for p < n && take(p) {
			p++
		}
		pages.Add(first+from, p-from)
	}
}

// addHeld adds the pages of a region that may be other than what a restore
// begins with: zeros, or an image's.
func (s *saving) addHeld(pages *snapshot.Pages, first uint64, image bool, h []memory.Holding) {
	stored := s.m.kept.storedPages(first, uint64(len(h)))
	addPages(pages, first, uint64(len(h)), func(p uint64) bool {
		switch h[p] {
		case memory.HoldsOwn:
			return true
		case memory.HoldsFile:
			// Under restored RAM lies a snapshot's memory file; what of it
			// is a hole would come into the host's cache by being looked at.
			return !image && (stored == nil || stored[p])
		}
		return false
	})
}

// storedPages says of n pages from first which ones the snapshot that the
// machine was restored from has stored; nil for a machine that was not.
func (k *keeping) storedPages(first, n uint64) []bool {
	if k.origin == nil {
		return nil
	}
	stored := make([]bool, n)
	for run := range k.origin.pages.Within(first, n) {
		for p := range run.Count {
			stored[run.First-first+p] = true
		}
	}
	return stored
}

// knows says whether changes since the snapshot id are noted page by page.
func (k *keeping) knows(id snapshot.ID) bool { return k.changes(id) != nil }

func (k *keeping) changes(id snapshot.ID) *memory.Dirty {
	for _, e := range k.since {
		if e.id == id {
			return e.pages
		}
	}
	return nil
}

// noteChanges adds what was written since the last call to what has changed
// since each earlier snapshot.
func (m *Machine) noteChanges() error {
	k := &m.kept
	if !k.notes() {
		return nil
	}
	end := m.endOfMemory()
	written := k.own
	k.own = memory.NewDirty(end)
	m.mem.TrackDirty(k.own)
	if err := m.vm.(statefulVM).DirtyPages(written); err != nil {
		return err
	}
	for _, e := range k.since {
		e.pages.Merge(written)
	}
	for _, w := range k.watches {
		w.written.Merge(written)
	}
	return nil
}

// notes says whether written pages are noted.
func (k *keeping) notes() bool { return k.tracking || len(k.watches) > 0 }

// locked runs f while no snapshot is being taken.
func (k *keeping) locked(f func(*keeping) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return f(k)
}

func (k *keeping) forget(w *MemoryWatch) {
	k.watches = slices.DeleteFunc(k.watches, func(o *MemoryWatch) bool { return o == w })
}

// track begins to note what changes, with the pages that have changed since
// the machine was restored as a beginning.
func (s *saving) track(holdings [][]memory.Holding) error {
	k := &s.m.kept
	if !s.opt.Track || k.tracking {
		return nil
	}
	if k.origin != nil && holdings != nil {
		changed := memory.NewDirty(s.m.endOfMemory())
		for i, r := range s.m.mem.Regions() {
			for p, h := range holdings[i] {
				if h == memory.HoldsOwn {
					changed.Mark(r.Base+memory.Addr(p*memory.PageSize), 1)
				}
			}
		}
		k.since = append(k.since, since{k.origin.id, changed})
	}
	k.own = memory.NewDirty(s.m.endOfMemory())
	s.m.mem.TrackDirty(k.own)
	k.tracking = true
	return s.vm.SetDirtyLog(true)
}
