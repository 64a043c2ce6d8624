package snapshot

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// readAhead has the host read pages of f into its cache.
func readAhead(f *os.File, r Run) {
	_ = unix.Fadvise(int(f.Fd()), int64(r.First*memory.PageSize), int64(r.Count*memory.PageSize), unix.FADV_WILLNEED)
}
