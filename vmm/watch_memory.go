package vmm

import (
	"context"
	"errors"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// MemoryWatch is somebody's look at which pages of guest memory are in use and
// which change. While there is one, stores to pages that have not been written
// since the last look cost the guest a fault, or a miss in the software CPU's
// TLB.
type MemoryWatch struct {
	m       *Machine
	written *memory.Dirty // since the last look
}

// PageCounts are the pages of a stretch of guest memory.
type PageCounts struct {
	Pages   uint32 `json:"pages"`
	Own     uint32 `json:"own"`     // have contents of their own
	Shared  uint32 `json:"shared"`  // have those of a file: an image, or a snapshot that other machines use too
	Written uint32 `json:"written"` // were written since the last look
}

// RegionPages are a region of guest memory in stretches of equal size; the last
// one may be shorter.
type RegionPages struct {
	Base      uint64       `json:"base"`
	Size      uint64       `json:"size"` // bytes
	Kind      string       `json:"kind"`
	Stretch   uint64       `json:"stretch"` // bytes
	Stretches []PageCounts `json:"stretches"`
}

// WatchMemory begins a look at guest memory. Close must be called.
func (m *Machine) WatchMemory(ctx context.Context) (*MemoryWatch, error) {
	w := &MemoryWatch{m: m}
	err := m.kept.locked(func(k *keeping) error {
		return m.Standing(ctx, func() error {
			if !k.notes() {
				vm, ok := m.vm.(statefulVM)
				if !ok {
					return errors.New("this accelerator does not tell which pages the guest writes")
				}
				if err := vm.SetDirtyLog(true); err != nil {
					return err
				}
				k.own = memory.NewDirty(m.endOfMemory())
				m.mem.TrackDirty(k.own)
			} else if err := m.noteChanges(); err != nil {
				return err
			}
			w.written = memory.NewDirty(m.endOfMemory())
			k.watches = append(k.watches, w)
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return w, nil
}

// Look counts pages in about stretches parts of each region. The machine is
// paused for the moment of reading what was written.
func (w *MemoryWatch) Look(ctx context.Context, stretches int) ([]RegionPages, error) {
	err := w.m.kept.locked(func(*keeping) error { return w.m.Standing(ctx, w.m.noteChanges) })
	if err != nil {
		return nil, err
	}
	var list []RegionPages
	for _, r := range w.m.mem.Regions() {
		list = append(list, w.count(&r, max(1, stretches)))
	}
	w.written = memory.NewDirty(w.m.endOfMemory())
	return list, nil
}

func (w *MemoryWatch) count(r *memory.Region, stretches int) RegionPages {
	pages := len(r.Bytes) / memory.PageSize
	per := (pages + stretches - 1) / stretches
	v := RegionPages{Base: uint64(r.Base), Size: uint64(len(r.Bytes)), Kind: regionKinds[r.Kind], Stretch: uint64(per) * memory.PageSize,
		Stretches: make([]PageCounts, (pages+per-1)/per)}
	// Which contents a page has may change while this is read: it is a look,
	// and not a copy.
	for p, h := range memory.Holdings(r) {
		c := &v.Stretches[p/per]
		c.Pages++
		switch h {
		case memory.HoldsOwn:
			c.Own++
		case memory.HoldsFile:
			c.Shared++
		}
		if w.written.Has(r.Base + memory.Addr(p*memory.PageSize)) {
			c.Written++
		}
	}
	return v
}

// Close ends the look.
func (w *MemoryWatch) Close() error {
	return w.m.kept.locked(func(k *keeping) error {
		return w.m.Standing(context.Background(), func() error {
			err := w.m.noteChanges()
			k.forget(w)
			if k.notes() {
				return err
			}
			w.m.mem.TrackDirty(nil)
			k.own = nil
			return errors.Join(err, w.m.vm.(statefulVM).SetDirtyLog(false))
		})
	})
}
