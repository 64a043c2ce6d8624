package memory

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func randomFile(t *testing.T, n int) (*os.File, []byte) {
	t.Helper()
	data := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(data)
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, data
}

// isMapped says whether this process maps path.
func isMapped(t *testing.T, path string) bool {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Skip("no /proc/self/maps: ", err)
	}
	return strings.Contains(string(maps), path)
}

func TestMapFilePlacesExactlyTheBytes(t *testing.T) {
	const size = 1 << 20
	f, data := randomFile(t, size-123)
	for _, c := range []struct {
		name   string
		addr   Addr
		offset int64
		n      uint64
	}{
		{"whole file", 0x200000, 0, size - 123},
		{"aligned pages", 0x200000, 0x3000, 0x40000},
		{"head and tail", 0x200234, 0x1234, 0x41111},
		{"unaligned", 0x200001, 0, 0x40000},
		{"one page", 0x200000, 0, PageSize},
		{"inside a page", 0x200010, 0x1010, 100},
		{"to the end of memory", 4<<20 - 0x40000, 0, 0x40000},
		{"nothing", 0x200000, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, err := New(4 << 20)
			if err != nil {
				t.Fatal(err)
			}
			defer g.Close()
			want := make([]byte, 4<<20)
			copy(want[c.addr:], data[c.offset:c.offset+int64(c.n)])
			if err := g.MapFile(c.addr, f, c.offset, c.n); err != nil {
				t.Fatal(err)
			}
			got, err := g.Bytes(0, 4<<20)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Error("memory differs from the file's bytes in their place and zeros elsewhere")
			}
		})
	}
}

func TestMapFileSharesPagesAndKeepsWritesPrivate(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("no mapping on this system")
	}
	f, data := randomFile(t, 1<<20)
	g, err := New(4 << 20)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.MapFile(0x100000, f, 0, 1<<20); err != nil {
		t.Fatal(err)
	}
	if !isMapped(t, f.Name()) {
		t.Error("the file is not mapped")
	}
	if err := g.WriteAt([]byte("changed"), 0x100800); err != nil {
		t.Fatal(err)
	}
	onDisk, err := os.ReadFile(f.Name())
	if err != nil || !bytes.Equal(onDisk, data) {
		t.Errorf("a guest's write reached the file (%v)", err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if isMapped(t, f.Name()) {
		t.Error("the file is still mapped after Close")
	}
}

func TestMapFileNotesTheWrite(t *testing.T) {
	f, _ := randomFile(t, 1<<20)
	g, err := New(4 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	d := NewDirty(4 << 20)
	g.TrackDirty(d)
	var seen [2]uint64
	g.OnWrite(func(a Addr, n uint64) { seen = [2]uint64{uint64(a), n} })
	if err := g.MapFile(0x100800, f, 0x800, 0x20000); err != nil {
		t.Fatal(err)
	}
	if d.Count() != 0x21 || !d.Has(0x100000) || !d.Has(0x120000) || d.Has(0x121000) {
		t.Errorf("dirty pages: %d", d.Count())
	}
	if seen != [2]uint64{0x100800, 0x20000} {
		t.Errorf("OnWrite saw %#x", seen)
	}
}

func TestMapFileCopiesIntoTheCallersMemory(t *testing.T) {
	f, data := randomFile(t, 1<<20)
	g := NewEmpty()
	defer g.Close()
	own := make([]byte, 2<<20)
	if err := g.AddRegion(Region{Bytes: own}); err != nil {
		t.Fatal(err)
	}
	if err := g.MapFile(0, f, 0, 1<<20); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(own[:1<<20], data) {
		t.Error("the bytes are not there")
	}
	if runtime.GOOS == "linux" && isMapped(t, f.Name()) {
		t.Error("mapped over memory that is not this package's")
	}
}

func TestMapFileRefuses(t *testing.T) {
	f, _ := randomFile(t, 1<<20)
	g, err := New(4 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	for name, c := range map[string]struct {
		addr   Addr
		offset int64
		n      uint64
		want   error
	}{
		"past the file":           {0, 0, 1<<20 + 1, io.ErrUnexpectedEOF},
		"offset past the file":    {0, 1<<20 + 1, 1, io.ErrUnexpectedEOF},
		"negative offset":         {0, -1, 1, io.ErrUnexpectedEOF},
		"length that wraps":       {0, 1, ^uint64(0), io.ErrUnexpectedEOF},
		"past memory":             {4<<20 - PageSize, 0, 2 * PageSize, new(RangeError)},
		"address outside":         {1 << 40, 0, 1 << 20, new(RangeError)},
		"address in the last 4 K": {^Addr(0), 0, 1 << 20, new(RangeError)},
	} {
		err := g.MapFile(c.addr, f, c.offset, c.n)
		var re *RangeError
		if _, wantRange := c.want.(*RangeError); wantRange != errors.As(err, &re) || !wantRange && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
