package boot

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// cachedBz is a bzImage in a file that is old enough for its stat(2) to
// identify it, as far as a test can make it so.
func cachedBz(t *testing.T, format string) *os.File {
	t.Helper()
	f := file(t, "bzImage", buildBz(testBz{payload: packed(t, format)}))
	past := time.Now().Add(-time.Hour)
	if err := os.Chtimes(f.Name(), past, past); err != nil {
		t.Fatal(err)
	}
	return f
}

// load loads a bzImage through the cache and returns what was noted.
func load(t *testing.T, kernel *os.File, dir string) (notes []string) {
	t.Helper()
	g := guest(t, 64<<20)
	_, err := Load(g, Image{Kernel: kernel, CacheDir: dir,
		Notef: func(f string, args ...any) { notes = append(notes, fmt.Sprintf(f, args...)) }})
	if err != nil {
		t.Fatal(err)
	}
	checkTiny(t, g)
	return notes
}

func entries(t *testing.T, dir string) []string {
	t.Helper()
	m, err := filepath.Glob(filepath.Join(dir, "*.elf"))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestCacheKeepsWhatWasUnpacked(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "when needed")
	kernel := cachedBz(t, "zstd")
	load(t, kernel, dir)
	all := entries(t, dir)
	if len(all) != 1 {
		t.Fatalf("entries %q", all)
	}
	b, err := os.ReadFile(all[0])
	if err != nil || !bytes.HasPrefix(b, buildELF(tinyKernel())) || len(b) != len(buildELF(tinyKernel()))+trailerSize {
		t.Errorf("entry of %d bytes, %v", len(b), err)
	}
	// An entry of the right digest but other contents shows that it is used:
	// the next load gets what is in the cache, not what is in the bzImage.
	other := tinyKernel()
	other.entry = 0x100_0200
	replaceEntry(t, dir, kernel, buildELF(other))
	g := guest(t, 64<<20)
	e, err := Load(g, Image{Kernel: kernel, CacheDir: dir})
	if err != nil || e.Regs.RIP != 0x100_0200 {
		t.Errorf("the cached kernel is not used: entry %#x, %v", e.Regs.RIP, err)
	}
}

// replaceEntry gives the entry of a bzImage other contents with a right
// trailer.
func replaceEntry(t *testing.T, dir string, kernel *os.File, elf []byte) {
	t.Helper()
	image, err := os.ReadFile(kernel.Name())
	if err != nil {
		t.Fatal(err)
	}
	c := cache{dir: dir, notef: t.Logf}
	f, err := c.add(sha256.Sum256(image), elf)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

func TestCacheUnpacksDamagedEntriesAnew(t *testing.T) {
	for name, damage := range map[string]func(b []byte) []byte{
		"contents": func(b []byte) []byte { b[5000] ^= 1; return b },
		"digest":   func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"length":   func(b []byte) []byte { b[len(b)-40] ^= 1; return b },
		"cut":      func(b []byte) []byte { return b[:len(b)/2] },
		"empty":    func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			dir, kernel := t.TempDir(), cachedBz(t, "gzip")
			load(t, kernel, dir)
			path := entries(t, dir)[0]
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, damage(b), 0o600); err != nil {
				t.Fatal(err)
			}
			if notes := load(t, kernel, dir); len(notes) != 1 || !strings.Contains(notes[0], "damaged") {
				t.Errorf("notes %q", notes)
			}
			if notes := load(t, kernel, dir); len(notes) != 0 {
				t.Errorf("the entry was not made anew: %q", notes)
			}
		})
	}
}

// TestCacheKnowsKernelsByStat: with a record an entry is used without hashing
// the bzImage, and no longer once the bzImage has changed.
func TestCacheKnowsKernelsByStat(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("no stat(2) identity on this system")
	}
	dir, kernel := t.TempDir(), cachedBz(t, "lz4")
	load(t, kernel, dir)
	c := cache{dir: dir, notef: t.Logf}
	if f, _ := c.known(kernel); f != nil {
		f.Close()
		t.Error("a file changed a moment ago is identified by its times")
	}
	image, err := os.ReadFile(kernel.Name())
	if err != nil {
		t.Fatal(err)
	}
	entry := open(t, entries(t, dir)[0])
	remember := func() {
		id, _ := identify(kernel)
		entryID, _ := identify(entry)
		record := fmt.Sprintf("%x %s %s\n", sha256.Sum256(image), id, entryID)
		if err := os.WriteFile(c.record(id), []byte(record), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	remember()
	f, size := c.known(kernel)
	if f == nil || size != uint64(len(buildELF(tinyKernel()))) {
		t.Fatalf("not known: %v, %d bytes", f, size)
	}
	f.Close()
	load(t, kernel, dir)

	now := time.Now()
	if err := os.Chtimes(kernel.Name(), now, now); err != nil {
		t.Fatal(err)
	}
	if f, _ := c.known(kernel); f != nil {
		t.Error("known although the bzImage has changed")
	}
	remember()
	if err := os.Chmod(entry.Name(), 0o600); err != nil {
		t.Fatal(err)
	}
	if f, _ := c.known(kernel); f != nil {
		t.Error("known although the entry has changed")
	}
	for _, record := range []string{"", "x", "x y z", "00 " + strings.Repeat("z", 10) + " q", strings.Repeat("0", 1000)} {
		id, _ := identify(kernel)
		if err := os.WriteFile(c.record(id), []byte(record), 0o600); err != nil {
			t.Fatal(err)
		}
		if f, _ := c.known(kernel); f != nil {
			t.Errorf("known by the record %q", record)
		}
	}
}

func TestCachePrunes(t *testing.T) {
	dir := t.TempDir()
	c := cache{dir: dir, notef: t.Errorf}
	key := func(i int) [32]byte { return sha256.Sum256([]byte{byte(i)}) }
	for i := range 5 {
		f, err := c.add(key(i), []byte("0123456789"))
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		at := time.Now().Add(time.Duration(i-100) * time.Hour)
		if err := os.Chtimes(f.Name(), at, at); err != nil {
			t.Fatal(err)
		}
	}
	// The oldest is the one used last; a record of one that is gone goes too.
	write := func(name, text string, at time.Time) {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	write("stat-1-1", fmt.Sprintf("%x a b\n", key(0)), time.Now())
	write("stat-1-2", fmt.Sprintf("%x a b\n", key(1)), time.Now().Add(-200*time.Hour))
	write("tmp-old", "", time.Now().Add(-2*time.Hour))
	write("tmp-new", "", time.Now())
	c.prune(3, 3*(10+trailerSize))
	var left []string
	dirEntries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range dirEntries {
		left = append(left, e.Name())
	}
	for i, want := range []bool{true, false, false, true, true} {
		if got := strings.Contains(strings.Join(left, " "), fmt.Sprintf("%x.elf", key(i))); got != want {
			t.Errorf("entry %d is there: %v", i, got)
		}
	}
	if names := strings.Join(left, " "); !strings.Contains(names, "stat-1-1") || strings.Contains(names, "stat-1-2") ||
		strings.Contains(names, "tmp-old") || !strings.Contains(names, "tmp-new") {
		t.Errorf("left: %q", left)
	}
	c.prune(3, 10+trailerSize)
	if n := len(entries(t, dir)); n != 1 {
		t.Errorf("%d entries left where one may be", n)
	}
}

func TestCacheThatCannotBeWritten(t *testing.T) {
	path := file(t, "not a directory", nil).Name()
	if notes := load(t, cachedBz(t, "xz"), path); len(notes) != 1 || !strings.Contains(notes[0], "cache of unpacked kernels") {
		t.Errorf("notes %q", notes)
	}
}
