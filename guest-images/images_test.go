package guestimages

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func names() []string { return []string{KernelLean, KernelFull, RootFS, Init} }

// The binary must not grow past what a download should be.
func TestSize(t *testing.T) {
	var total int64
	entries, err := files.ReadDir("images")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if total > 10<<20 {
		t.Errorf("%d bytes embedded, more than 10 MiB", total)
	}
}

func TestPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "here")
	for _, name := range names() {
		path, err := Path(dir, name)
		if err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		img, err := lookUp(name)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(content)
		if int64(len(content)) != img.size || hex.EncodeToString(sum[:]) != img.sum {
			t.Errorf("%s: %d bytes that are not the image", name, len(content))
		}
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != len(names()) {
		t.Errorf("left in the cache: %v", entries)
	}
}

func TestPathKeepsAndRepairs(t *testing.T) {
	dir := t.TempDir()
	path, err := Path(dir, Init)
	if err != nil {
		t.Fatal(err)
	}
	before, _ := os.Stat(path)
	if _, err := Path(dir, Init); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.Stat(path); !os.SameFile(before, after) || !after.ModTime().Equal(before.ModTime()) {
		t.Error("unpacked again although it was there")
	}
	if err := errors.Join(os.Chmod(path, 0o600), os.Truncate(path, 10)); err != nil {
		t.Fatal(err)
	}
	if _, err := Path(dir, Init); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(path); info.Size() != before.Size() {
		t.Errorf("a damaged file stayed: %d bytes", info.Size())
	}
}

func TestPathAtOnce(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			path, err := Path(dir, Init)
			if err != nil {
				t.Error(err)
				return
			}
			if content, err := os.ReadFile(path); err != nil || !bytes.HasPrefix(content, []byte(elf.ELFMAG)) {
				t.Errorf("%d bytes, %v", len(content), err)
			}
		})
	}
	wg.Wait()
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left in the cache: %v", entries)
	}
}

func TestPathErrors(t *testing.T) {
	if _, err := Path(t.TempDir(), "no-such"); !errors.Is(err, ErrUnknown) {
		t.Errorf("unknown name: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Path(file, Init)
	if err == nil || !strings.Contains(err.Error(), "cache folder") {
		t.Errorf("a file as cache folder: %v", err)
	}
	var pathError *fs.PathError
	if !errors.As(err, &pathError) {
		t.Errorf("%v does not wrap the file system's error", err)
	}
}

func TestDecompressNoticesDamage(t *testing.T) {
	packed, err := files.ReadFile("images/init.zst")
	if err != nil {
		t.Fatal(err)
	}
	img, err := lookUp(Init)
	if err != nil {
		t.Fatal(err)
	}
	damage := func(change func(img *image, packed []byte) []byte) error {
		i := img
		f, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		return decompress(i, f, change(&i, bytes.Clone(packed)))
	}
	for name, change := range map[string]func(*image, []byte) []byte{
		"a byte":    func(_ *image, p []byte) []byte { p[len(p)/2] ^= 1; return p },
		"its end":   func(_ *image, p []byte) []byte { return p[:len(p)-9] },
		"its frame": func(_ *image, p []byte) []byte { return p[4:] },
	} {
		if err := damage(change); err == nil {
			t.Errorf("%s damaged: no error", name)
		}
	}
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	short := img
	short.size--
	if err := decompress(short, f, packed); err == nil {
		t.Error("more than the manifest says: no error")
	}
}

// Kernels must be what the boot loader takes, with a way in by PVH; the root
// must fit persistent memory's unit.
func TestKinds(t *testing.T) {
	dir := t.TempDir()
	for _, k := range Kernels() {
		path, err := Path(dir, "kernel-"+k)
		if err != nil {
			t.Fatal(err)
		}
		f, err := elf.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if f.Machine != elf.EM_X86_64 || !hasPVHNote(t, f) {
			t.Errorf("%s: machine %v, or no PVH note", k, f.Machine)
		}
		_ = f.Close()
	}
	path, err := Path(dir, RootFS)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// The super block's magic number, erofs_fs.h.
	if len(content)%(2<<20) != 0 || binary.LittleEndian.Uint32(content[1024:]) != 0xe0f5e1e2 {
		t.Errorf("%d bytes, magic %#x", len(content), content[1024:1028])
	}
}

// hasPVHNote looks for XEN_ELFNOTE_PHYS32_ENTRY (18).
func hasPVHNote(t *testing.T, f *elf.File) bool {
	t.Helper()
	for _, p := range f.Progs {
		if p.Type != elf.PT_NOTE {
			continue
		}
		note := make([]byte, p.Filesz)
		if _, err := p.ReadAt(note, 0); err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(note, []byte("\x04\x00\x00\x00\x08\x00\x00\x00\x12\x00\x00\x00Xen\x00")) {
			return true
		}
	}
	return false
}

func BenchmarkPathThere(b *testing.B) {
	dir := b.TempDir()
	if _, err := Path(dir, Init); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Path(dir, Init); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUnpackRoot(b *testing.B) {
	for b.Loop() {
		if _, err := Path(b.TempDir(), RootFS); err != nil {
			b.Fatal(err)
		}
	}
}
