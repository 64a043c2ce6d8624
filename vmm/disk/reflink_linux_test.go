package disk

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vitrine-vmm/vitrine/devices/virtio/blk"
	"github.com/vitrine-vmm/vitrine/devices/virtio/blk/blktest"
)

// xfs mounts a small file system that shares blocks between files.
func xfs(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting a file system needs root")
	}
	if _, err := exec.LookPath("mkfs.xfs"); err != nil {
		t.Skip("mkfs.xfs is not installed (Debian: xfsprogs)")
	}
	image, dir := newFile(t, t.TempDir(), 400<<20), t.TempDir()
	for _, args := range [][]string{{"mkfs.xfs", "-q", "-m", "reflink=1", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%v: %v\n%s", args, err, out)
		}
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
	return dir
}

// TestOverlayThatSharesBlocks: where the file system can, an overlay is a raw
// file that takes no room, and does not need its base.
func TestOverlayThatSharesBlocks(t *testing.T) {
	dir := xfs(t)
	base, path := filepath.Join(dir, "base"), filepath.Join(dir, "over")
	want := fill(4, 8<<20)
	mustDo(t, os.WriteFile(base, want, 0o600))
	var before, after unix.Statfs_t
	unix.Sync()
	mustDo(t, unix.Statfs(dir, &before))
	format, err := CreateOverlay(path, base, Raw)
	if err != nil || format != Raw {
		t.Fatalf("the overlay is %q, %v: want a raw file", format, err)
	}
	mustDo(t, unix.Statfs(dir, &after))
	if used := int64(before.Bfree-after.Bfree) * before.Bsize; used > 1<<20 {
		t.Errorf("an overlay over 8 MiB takes %d bytes", used)
	}
	b := mustOpen(t, Options{Path: path, Direct: true})
	blktest.Do(t, b, &blk.Request{Op: blk.OpWrite, Vec: [][]byte{make([]byte, 4096)}})
	mustDo(t, b.Close(), os.Remove(base))
	clear(want[:4096])
	if p, err := os.ReadFile(path); err != nil || !bytes.Equal(p, want) {
		t.Errorf("the overlay has something else, %v", err)
	}
}
