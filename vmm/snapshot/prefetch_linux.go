package snapshot

import (
	"golang.org/x/sys/unix"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// Prefetch has the host read what is stored of memory into its cache, ahead of
// the guest.
func (s *Snapshot) Prefetch() {
	for _, l := range s.Layers() {
		for _, r := range l.State.Pages.Runs() {
			_ = unix.Fadvise(int(l.memory.Fd()), int64(r.First*memory.PageSize), int64(r.Count*memory.PageSize), unix.FADV_WILLNEED)
		}
	}
}
