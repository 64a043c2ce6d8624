package disk

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/virtio/blk"
	"github.com/vitrine-vmm/vitrine/devices/virtio/blk/blktest"
	"github.com/vitrine-vmm/vitrine/vmm/disk/qcow2"
)

// qemuImg runs qemu-img, which judges what we write. The test is skipped where
// it is not installed.
func qemuImg(t *testing.T, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Skip("qemu-img is not installed (Debian: qemu-utils)")
	}
	out, err := exec.Command("qemu-img", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-img %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestQCOW2Conformance(t *testing.T) {
	for name, bits := range map[string]int{"Clusters512": 9, "Clusters4k": 12, "Clusters64k": 16, "Clusters2M": 21} {
		t.Run(name, func(t *testing.T) {
			var paths []string
			blktest.TestBackend(t, func(t *testing.T, size int64) blk.Backend {
				path := filepath.Join(t.TempDir(), "disk.qcow2")
				if err := qcow2.Create(path, qcow2.CreateOptions{Size: size, ClusterBits: bits}); err != nil {
					t.Fatal(err)
				}
				paths = append(paths, path)
				b := mustOpen(t, Options{Path: path, Format: QCOW2})
				return checked{b, t, path}
			})
		})
	}
}

// checked is a disk whose image is shown to qemu-img when it is closed.
type checked struct {
	blk.Backend
	t    *testing.T
	path string
}

func (c checked) Close() error {
	err := c.Backend.Close()
	if err == nil {
		checkImage(c.t, c.path)
	}
	return err
}

// checkImage shows an image to qemu-img, where that is installed.
func checkImage(t *testing.T, path string) {
	t.Helper()
	if _, err := exec.LookPath("qemu-img"); err == nil {
		qemuImg(t, "check", path)
	}
}

func fill(seed byte, n int) []byte {
	p := make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(seed), 5))
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

func readAll(t *testing.T, b blk.Backend) []byte {
	t.Helper()
	p := bytes.Repeat([]byte{0xee}, int(b.Info().Size))
	blktest.Do(t, b, &blk.Request{Op: blk.OpRead, Vec: [][]byte{p}})
	return p
}

// TestImagesOfQEMU reads what qemu-img writes: compressed either way, with
// other refcount widths, version 2, preallocated.
func TestImagesOfQEMU(t *testing.T) {
	dir := t.TempDir()
	raw := filepath.Join(dir, "raw")
	want := append(fill(1, 300<<10), make([]byte, 200<<10)...)
	want = append(want, bytes.Repeat([]byte("squeeze me "), 40000)[:400<<10]...)
	if err := os.WriteFile(raw, want, 0o600); err != nil {
		t.Fatal(err)
	}
	for i, args := range [][]string{
		{},
		{"-c"},
		{"-c", "-o", "compression_type=zstd"},
		{"-o", "compat=0.10"},
		{"-o", "refcount_bits=1"},
		{"-o", "refcount_bits=64,cluster_size=4096"},
		{"-o", "preallocation=full"},
		{"-o", "lazy_refcounts=on"},
	} {
		path := filepath.Join(dir, string(rune('a'+i)))
		qemuImg(t, append(append([]string{"convert", "-f", "raw", "-O", "qcow2"}, args...), raw, path)...)
		b := mustOpen(t, Options{Path: path, Format: QCOW2})
		if !bytes.Equal(readAll(t, b), want) {
			t.Errorf("%v: contents differ", args)
		}
		// What was compressed or zero is written over, in part.
		got := bytes.Clone(want)
		for _, off := range []int{512, 290 << 10, 310 << 10, 520 << 10, 899 << 10} {
			copy(got[off:], fill(9, 1024))
			blktest.Do(t, b, &blk.Request{Op: blk.OpWrite, Offset: int64(off), Vec: [][]byte{got[off : off+1024]}})
		}
		if !bytes.Equal(readAll(t, b), got) {
			t.Errorf("%v: contents differ after writing", args)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		qemuImg(t, "check", path)
		back := filepath.Join(dir, "back")
		qemuImg(t, "convert", "-f", "qcow2", "-O", "raw", path, back)
		if p, _ := os.ReadFile(back); !bytes.Equal(p, got) {
			t.Errorf("%v: qemu-img reads something else", args)
		}
	}
}

// TestOverlay: a chain of images over a raw file.
func TestOverlay(t *testing.T) {
	dir := t.TempDir()
	base := filepath.Join(dir, "base")
	want := fill(2, 200<<10+512)
	if err := os.WriteFile(base, want, 0o600); err != nil {
		t.Fatal(err)
	}
	under, format := base, Raw
	for i := range 3 {
		path := filepath.Join(dir, string(rune('a'+i)))
		if err := qcow2.Create(path, qcow2.CreateOptions{Size: 1 << 20, Backing: filepath.Base(under), BackingFormat: string(format), ClusterBits: 12 + 2*i}); err != nil {
			t.Fatal(err)
		}
		b := mustOpen(t, Options{Path: path, Format: QCOW2})
		if i == 0 {
			want = append(want, make([]byte, 1<<20-len(want))...)
		}
		if !bytes.Equal(readAll(t, b), want) {
			t.Errorf("layer %d: contents differ from what lies below", i)
		}
		at := 512 * (10*i + 3)
		copy(want[at:], fill(byte(i), 4096))
		blktest.Do(t, b, &blk.Request{Op: blk.OpWrite, Offset: int64(at), Vec: [][]byte{want[at : at+4096]}})
		clear(want[100<<10 : 140<<10])
		blktest.Do(t, b, &blk.Request{Op: blk.OpDiscard, Offset: 100 << 10, Length: 40 << 10})
		blktest.Do(t, b, &blk.Request{Op: blk.OpWriteZeroes, Offset: 100 << 10, Length: 40 << 10})
		if !bytes.Equal(readAll(t, b), want) {
			t.Errorf("layer %d: contents differ after writing", i)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		under, format = path, QCOW2
	}
	if p, _ := os.ReadFile(base); !bytes.Equal(p, fill(2, 200<<10+512)) {
		t.Error("the base was written to")
	}
	back := filepath.Join(dir, "back")
	qemuImg(t, "convert", "-f", "qcow2", "-O", "raw", under, back)
	if p, _ := os.ReadFile(back); !bytes.Equal(p, want) {
		t.Error("qemu-img reads something else")
	}
}

func TestCreateOverlay(t *testing.T) {
	dir := t.TempDir()
	base, path := filepath.Join(dir, "base"), filepath.Join(dir, "over")
	want := fill(3, 256<<10)
	if err := os.WriteFile(base, want, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := CreateOverlay(path, base, Raw)
	if err != nil {
		t.Fatal(err)
	}
	b := mustOpen(t, Options{Path: path, Format: f})
	if !bytes.Equal(readAll(t, b), want) {
		t.Error("an overlay differs from its base")
	}
	blktest.Do(t, b, &blk.Request{Op: blk.OpWrite, Vec: [][]byte{make([]byte, 512)}})
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if p, _ := os.ReadFile(base); !bytes.Equal(p, want) {
		t.Error("the base was written to")
	}
	if _, err := CreateOverlay(path, base, Raw); err == nil {
		t.Error("an overlay replaces a file that exists")
	}
	second := filepath.Join(dir, "second")
	if f, err := CreateOverlay(second, path, f); err != nil || f == "" {
		t.Errorf("an overlay over an overlay: %v", err)
	}
}

func TestBackingRefused(t *testing.T) {
	dir := t.TempDir()
	create := func(name, backing, format string) string {
		path := filepath.Join(dir, name)
		if err := qcow2.Create(path, qcow2.CreateOptions{Size: 1 << 20, Backing: backing, BackingFormat: format}); err != nil {
			t.Fatal(err)
		}
		return path
	}
	loop := create("loop", "loop", "qcow2")
	for path, want := range map[string]string{
		create("none", "missing", "raw"):        "no such file",
		create("proto", "nbd:localhost", "raw"): "not a file's name",
		create("format", "none", "vmdk"):        "vmdk",
		loop:                                    "loop",
	} {
		if _, err := Open(Options{Path: path, Format: QCOW2, ReadOnly: true}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", path, err, want)
		}
	}
	// A writer under an overlay is refused.
	base := newFile(t, dir, 1<<20)
	over := create("over", base, "raw")
	b := mustOpen(t, Options{Path: over, Format: QCOW2})
	if _, err := Open(Options{Path: base}); !errors.Is(err, ErrInUse) {
		t.Errorf("a base of an overlay in use is opened for writing: %v", err)
	}
	_ = b.Close()
	if _, err := Open(Options{Path: base, Format: QCOW2}); err == nil {
		t.Error("a raw file is opened as qcow2")
	}
}
