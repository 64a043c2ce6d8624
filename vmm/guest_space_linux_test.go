package vmm_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
	"github.com/vitrine-vmm/vitrine/vmm/disk"
)

func blocks(t testing.TB, path string) int64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// What the guest discards takes no place on the host any more, by the device
// itself and through a file system.
func TestGuestDiscards(t *testing.T) { eachTransport(t, testDiscards) }

func testDiscards(t *testing.T, transport vmm.Transport) {
	t.Helper()
	file, content := rawFile(t, 8<<20)
	ext4 := ext4File(t, 32<<20)
	g := bootGuest(t, vmm.Config{Transport: transport, Devices: []virtio.Device{newDisk(t, disk.Options{Path: file}), newDisk(t, disk.Options{Path: ext4})}})
	probe := g.probe()
	before := blocks(t, file)
	g.must(probe, "discard", "/dev/vda", fmt.Sprint(1<<20), fmt.Sprint(6<<20))
	if freed := before - blocks(t, file); freed != 6<<20 {
		t.Errorf("%d bytes of 6 MiB became free", freed)
	}
	want := append(append(append([]byte{}, content[:1<<20]...), make([]byte, 6<<20)...), content[7<<20:]...)
	if now, err := os.ReadFile(file); err != nil || !bytes.Equal(now, want) {
		t.Errorf("the discarded range is not zeros, or more than it went; %v", err)
	}

	g.sh("mkdir /tmp/mnt && mount -t ext4 -o discard /dev/vdb /tmp/mnt && dd if=/dev/urandom of=/tmp/mnt/file bs=1M count=8 && sync")
	full := blocks(t, ext4)
	g.sh("rm /tmp/mnt/file && sync && umount /tmp/mnt")
	waitFor(t, acceltest.Limit(10*time.Second), func() string { return fmt.Sprintf("only %d bytes of 8 MiB became free", full-blocks(t, ext4)) },
		func() bool { return full-blocks(t, ext4) >= 7<<20 })
	g.sh("mount -t ext4 /dev/vdb /tmp/mnt && dd if=/dev/urandom of=/tmp/mnt/file bs=1M count=8 && sync && rm /tmp/mnt/file && sync")
	full = blocks(t, ext4)
	g.must(probe, "trim", "/tmp/mnt")
	if freed := full - blocks(t, ext4); freed < 7<<20 {
		t.Errorf("trim freed %d bytes of 8 MiB", freed)
	}
}

// A back end without space is an I/O error for the guest, and nothing more.
func TestGuestDiskWithoutSpace(t *testing.T) { eachTransport(t, testDiskWithoutSpace) }

func testDiskWithoutSpace(t *testing.T, transport vmm.Transport) {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("vitrine-test", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("no small file system can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	file := filepath.Join(dir, "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 16<<20); err != nil { // with holes
		t.Fatal(err)
	}
	g := bootGuest(t, vmm.Config{Transport: transport, Devices: []virtio.Device{newDisk(t, disk.Options{Path: file})}})
	if _, stderr, status := g.exec("dd", "if=/dev/urandom", "of=/dev/vda", "bs=1M", "count=8", "oflag=sync", "conv=notrunc"); status.ExitCode() == 0 {
		t.Errorf("8 MiB found place in 4: %s", stderr)
	}
	waitFor(t, acceltest.Limit(10*time.Second), func() string { return "the guest's kernel knows of no I/O error" },
		func() bool { return strings.Contains(g.must("dmesg"), "I/O error, dev vda") })
	// What found place is there, and the machine lives.
	if got := g.sh("head -c 1048576 /dev/vda | wc -c"); strings.TrimSpace(got) != "1048576" {
		t.Errorf("reading after the error: %q", got)
	}
	checkCommands(t, g)
}
