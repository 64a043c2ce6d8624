package vmm_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/blk"
	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/disk"
)

// newDisk is a device for the disk that o describes.
func newDisk(t testing.TB, o disk.Options) virtio.Device {
	t.Helper()
	b, err := disk.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	dev, err := blk.New(b, blk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return dev
}

// rawFile is a file of n random bytes.
func rawFile(t testing.TB, n int) (path string, data []byte) {
	t.Helper()
	path, data = filepath.Join(t.TempDir(), "disk"), noise(n, uint64(n))
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, data
}

// ext4File is a file with an empty ext4 file system.
func ext4File(t testing.TB, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ext4")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-E", "nodiscard", path).CombinedOutput(); err != nil {
		t.Skipf("mkfs.ext4 (Debian: e2fsprogs): %v\n%s", err, out)
	}
	return path
}

// Disks are what their files are, over both transports: read, written, named,
// and read-only where they are to be.
func TestGuestDisks(t *testing.T) {
	eachTransport(t, func(t *testing.T, transport vmm.Transport) {
		file, content := rawFile(t, 2<<20)
		fixed, fixedContent := rawFile(t, 1<<20)
		g := bootGuest(t, vmm.Config{Transport: transport, Devices: []virtio.Device{
			newDisk(t, disk.Options{Path: file, ID: "first"}),
			newDisk(t, disk.Options{Path: fixed, ReadOnly: true}),
		}})
		checkDisk(t, g, file, content)
		if got := g.sh("cat /dev/vdb | shasum -a 256"); !strings.HasPrefix(got, sum(fixedContent)) {
			t.Errorf("the read-only disk's sum is %s", got)
		}
		if out := g.must("cat", "/sys/block/vdb/ro"); out != "1\n" {
			t.Errorf("read-only: %q", out)
		}
		if _, stderr, status := g.exec("dd", "if=/dev/zero", "of=/dev/vdb", "bs=4096", "count=1"); status.ExitCode() == 0 {
			t.Errorf("a read-only disk was written to: %s", stderr)
		}
		if now, err := os.ReadFile(fixed); err != nil || !bytes.Equal(now, fixedContent) {
			t.Errorf("the read-only file changed, %v", err)
		}
	})
}

// checkDisk: /dev/vda is the file with the content, both before and after the
// guest has written to it.
func checkDisk(t *testing.T, g *guest, file string, content []byte) {
	t.Helper()
	if got := strings.Fields(g.must("cat", "/sys/block/vda/size", "/sys/block/vda/serial")); len(got) != 2 || got[0] != fmt.Sprint(len(content)/512) || got[1] != "first" {
		t.Errorf("size in sectors and serial number: %q", got)
	}
	if got := g.sh("cat /dev/vda | shasum -a 256"); !strings.HasPrefix(got, sum(content)) {
		t.Errorf("the guest's sum of the disk is %s, want %s", got, sum(content))
	}
	written := noise(256<<10, 77)
	g.put("/tmp/new", written, 0o600)
	g.sh("dd if=/tmp/new of=/dev/vda bs=4096 seek=32 conv=notrunc && sync")
	now, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if want := append(append(append([]byte{}, content[:32*4096]...), written...), content[32*4096+len(written):]...); !bytes.Equal(now, want) {
		t.Error("the file has not what the guest wrote")
	}
}

// A guest sees a base that another file's changes lie over.
func TestGuestDiskOverlay(t *testing.T) {
	t.Parallel()
	base, content := rawFile(t, 2<<20)
	overlay := filepath.Join(t.TempDir(), "overlay")
	format, err := disk.CreateOverlay(overlay, base, disk.Raw)
	if err != nil {
		t.Fatal(err)
	}
	written := noise(64<<10, 5)
	want := append(append(append([]byte{}, content[:4096]...), written...), content[4096+len(written):]...)
	round := func(name string, expect []byte, then string) {
		t.Run(name, func(t *testing.T) { // its disk is closed at its end
			g := bootGuest(t, vmm.Config{Devices: []virtio.Device{newDisk(t, disk.Options{Path: overlay, Format: format})}})
			if got := g.sh("cat /dev/vda | shasum -a 256"); !strings.HasPrefix(got, sum(expect)) {
				t.Errorf("the sum of the overlay is %s", got)
			}
			g.put("/tmp/new", written, 0o600)
			g.sh(then)
		})
	}
	round("before", content, "dd if=/tmp/new of=/dev/vda bs=4096 seek=1 conv=notrunc && sync")
	round("after", want, "true")
	if now, err := os.ReadFile(base); err != nil || !bytes.Equal(now, content) {
		t.Errorf("the base changed, %v", err)
	}
}
