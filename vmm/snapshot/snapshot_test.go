package snapshot

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

const ramSize = 3<<20 + 5*memory.PageSize

// ram is guest memory with runs of zeros and of noise.
func ram(seed uint64) []byte {
	b := make([]byte, ramSize)
	r := rand.New(rand.NewPCG(seed, 1))
	for p := 0; p < len(b)/memory.PageSize; p++ {
		if r.IntN(3) > 0 {
			b[p*memory.PageSize+r.IntN(memory.PageSize)] = byte(1 + r.IntN(255))
		}
	}
	return b
}

func sampleState() *State {
	return &State{
		Maker:   "test",
		Machine: Machine{Name: "m", Accel: "soft", CPUs: 1, Memory: ramSize, Transport: "mmio"},
		Memory:  []Region{{Size: ramSize}},
		CPUID:   []x86.CPUIDEntry{{Function: 1, EAX: 2}},
		CPUs:    []CPU{{LAPIC: x86.LAPIC{Regs: make([]byte, lapicPage)}, XSave: make([]byte, 576)}},
		App:     json.RawMessage(`{"a":1}`),
	}
}

func allPages() *Pages {
	p := new(Pages)
	p.Add(0, ramSize/memory.PageSize)
	return p
}

// write makes a snapshot of mem at dir.
func write(t testing.TB, dir string, mem []byte) {
	t.Helper()
	w, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteMemory([]Part{{Bytes: mem}}, allPages(), false); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(sampleState()); err != nil {
		t.Fatal(err)
	}
}

// contents opens the snapshot at dir and returns the memory it gives a guest.
func contents(t testing.TB, dir string) []byte {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Verify(); err != nil {
		t.Fatal(err)
	}
	g, err := s.Map(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	b, err := g.Bytes(0, ramSize)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(b)
}

func TestWriteAndRead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	mem := ram(1)
	write(t, dir, mem)
	if !bytes.Equal(contents(t, dir), mem) {
		t.Fatal("memory is another")
	}
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	want, _ := json.Marshal(sampleState().CPUs)
	got, _ := json.Marshal(s.State.CPUs)
	if !bytes.Equal(got, want) || string(s.State.App) != `{"a":1}` {
		t.Errorf("state %s, app %s", got, s.State.App)
	}
	zero := 0
	for p := 0; p < len(mem); p += memory.PageSize {
		if isZero(mem[p:]) {
			zero++
		}
	}
	if n := int(s.State.Pages.Count()); n != ramSize/memory.PageSize-zero {
		t.Errorf("%d pages stored, want %d: pages of zeros take no place", n, ramSize/memory.PageSize-zero)
	}
}

func TestMapIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	mem := ram(2)
	write(t, dir, mem)
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 2 {
		g, err := s.Map(nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := g.Bytes(0, ramSize); !bytes.Equal(b, mem) {
			t.Fatal("one restore sees what another wrote")
		}
		if err := g.WriteAt(bytes.Repeat([]byte{7}, 1<<20), 0x800); err != nil {
			t.Fatal(err)
		}
		defer g.Close()
	}
	if err := s.Verify(); err != nil {
		t.Error(err)
	}
}

// Every byte of the header, and each of a sample of the state's, counts.
func TestDamageIsSeen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	write(t, dir, ram(3))
	path := filepath.Join(dir, stateFile)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	places := make([]int, headerSize)
	for i := range places {
		places[i] = i
	}
	for i := headerSize; i < len(good); i += 1 + len(good)/200 {
		places = append(places, i)
	}
	for _, i := range places {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(dir)
		if err == nil {
			s.Close()
			t.Fatalf("byte %d changed, and nobody saw it", i)
		}
		var version *VersionError
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNotSnapshot) && !errors.As(err, &version) {
			t.Errorf("byte %d: %v: says not what is wrong", i, err)
		}
		if !strings.Contains(err.Error(), dir) {
			t.Errorf("byte %d: %v: does not name the snapshot", i, err)
		}
	}
	for _, n := range []int{0, 1, headerSize - 1, headerSize, headerSize + 1, len(good) - 1} {
		if err := os.WriteFile(path, good[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
}

func TestDamagedMemoryIsSeen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	mem := ram(4)
	write(t, dir, mem)
	path := filepath.Join(dir, memoryFile)
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, r := range s.State.Pages.Runs()[:20] {
		at := int64(r.First*memory.PageSize) + 77
		was := mem[at]
		if _, err := f.WriteAt([]byte{was ^ 1}, at); err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(); !errors.Is(err, ErrDamaged) {
			t.Fatalf("a bit at %#x changed: %v", at, err)
		}
		if _, err := f.WriteAt([]byte{was}, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Verify(); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int64{0, ramSize - 1, ramSize + memory.PageSize} {
		if err := os.Truncate(path, n); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); !errors.Is(err, ErrDamaged) {
			t.Errorf("memory of %d bytes: %v", n, err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.Is(err, ErrDamaged) {
		t.Errorf("no memory: %v", err)
	}
}

func TestNewerVersionIsNamed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	write(t, dir, ram(5))
	path := filepath.Join(dir, stateFile)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	binary.LittleEndian.PutUint32(b[8:], Version+1)
	binary.LittleEndian.PutUint32(b[92:], crc32.Checksum(b[:92], castagnoli))
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	var version *VersionError
	if _, err := Open(dir); !errors.As(err, &version) || version.Version != Version+1 {
		t.Fatalf("%v", err)
	}
}

// A snapshot of differences stands on one below, and is nothing without it.
func TestChain(t *testing.T) {
	top := t.TempDir()
	mem := ram(6)
	write(t, filepath.Join(top, "0"), mem)
	r := rand.New(rand.NewPCG(6, 6))
	for i := 1; i <= 3; i++ {
		base, err := Open(filepath.Join(top, string(rune('0'+i-1))))
		if err != nil {
			t.Fatal(err)
		}
		var changed Pages
		for p := uint64(0); p < ramSize/memory.PageSize; p++ {
			switch page := mem[p*memory.PageSize : (p+1)*memory.PageSize]; r.IntN(4) {
			case 0:
				page[r.IntN(len(page))]++
				changed.Add(p, 1)
			case 1:
				clear(page) // a page that became zero must not show what it was
				changed.Add(p, 1)
			}
		}
		w, err := Create(filepath.Join(top, string(rune('0'+i))))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.WriteMemory([]Part{{Bytes: mem}}, &changed, true); err != nil {
			t.Fatal(err)
		}
		st := sampleState()
		st.Base = &Base{ID: base.ID, Path: "../" + string(rune('0'+i-1))}
		if err := w.Commit(st); err != nil {
			t.Fatal(err)
		}
		base.Close()
		if got := contents(t, filepath.Join(top, string(rune('0'+i)))); !bytes.Equal(got, mem) {
			t.Fatalf("after %d steps memory is another", i)
		}
	}
	write(t, filepath.Join(top, "1"), mem)
	if _, err := Open(filepath.Join(top, "3")); err == nil || !strings.Contains(err.Error(), "replaced") {
		t.Errorf("the base was replaced: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(top, "1")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(top, "3")); !errors.Is(err, ErrNotSnapshot) {
		t.Errorf("the base is gone: %v", err)
	}
}

func TestReplaceAndAbort(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	one, two := ram(7), ram(8)
	write(t, dir, one)
	w, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteMemory([]Part{{Bytes: two}}, allPages(), false); err != nil {
		t.Fatal(err)
	}
	w.Abort()
	if !bytes.Equal(contents(t, dir), one) {
		t.Fatal("an aborted snapshot changed the old one")
	}
	write(t, dir, two)
	if !bytes.Equal(contents(t, dir), two) {
		t.Fatal("not replaced")
	}
	entries, err := os.ReadDir(filepath.Dir(dir))
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestOtherFoldersAreNotReplaced(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "mine"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(dir); err == nil {
		t.Fatal("would replace a folder with other files")
	}
	if _, err := Open(dir); !errors.Is(err, ErrNotSnapshot) {
		t.Errorf("%v", err)
	}
}

func TestImageIsRecognised(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, ram(9), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := Identify(f, ramSize)
	if err != nil {
		t.Fatal(err)
	}
	copied := path + "2"
	if err := os.WriteFile(copied, ram(9), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"", path, copied} {
		g, err := m.Open(p)
		if err != nil {
			t.Fatalf("%q: %v", p, err)
		}
		g.Close()
	}
	other := ram(9)
	other[100]++
	for _, b := range [][]byte{other, other[:100]} {
		if err := os.WriteFile(copied, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Open(copied); !errors.Is(err, errOtherFile) {
			t.Errorf("another file of %d bytes: %v", len(b), err)
		}
	}
}

func FuzzState(f *testing.F) {
	dir := filepath.Join(f.TempDir(), "s")
	write(f, dir, ram(10))
	b, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[headerSize:])
	f.Add([]byte(`{"machine":{"cpus":1},"cpus":[{}],"memory":[{"base":1,"size":4096}]}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		s, err := decodeState(doc, ramSize)
		if err != nil {
			return
		}
		if s.Pages.end() > ramSize/memory.PageSize || len(s.CPUs) != s.Machine.CPUs {
			t.Fatalf("accepted %+v", s)
		}
	})
}

func FuzzHeader(f *testing.F) {
	h := header{version: Version, stateLen: 1}
	f.Add(h.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHeader(b)
		if err == nil && (h.stateLen > maxState || h.memoryLen > maxMemory) {
			t.Fatalf("accepted %+v", h)
		}
	})
}

func FuzzPages(f *testing.F) {
	f.Add([]byte("AAEC/w8="))
	f.Fuzz(func(t *testing.T, text []byte) {
		var p, q Pages
		if p.UnmarshalText(text) != nil {
			return
		}
		var at uint64
		for i, r := range p.Runs() {
			if r.Count == 0 || i > 0 && r.First <= at || r.First < at {
				t.Fatalf("runs %v", p.Runs())
			}
			at = r.First + r.Count
		}
		again, err := p.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		if err := q.UnmarshalText(again); err != nil || len(q.Runs()) != len(p.Runs()) {
			t.Fatalf("not the same when read again: %v", err)
		}
	})
}
