package snapshot

import (
	"os"
	"syscall"
)

// diskUsage is how many bytes of the disk a file takes; holes take none.
func diskUsage(f *os.File) uint64 {
	info, err := f.Stat()
	if err != nil {
		return 0
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Blocks) * 512
	}
	return uint64(info.Size())
}
