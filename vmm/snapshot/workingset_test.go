package snapshot

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestWorkingSet(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	write(t, dir, ram(1))
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, ok := s.WorkingSet(); ok {
		t.Error("a new snapshot has a working set")
	}
	if n := s.Prefetch(); n != s.Stored() {
		t.Errorf("%d bytes read ahead of %d stored", n, s.Stored())
	}
	var need Pages
	need.Add(3, 2)
	need.Add(100, 5)
	if err := s.NoteWorkingSet(need); err != nil {
		t.Fatal(err)
	}
	if got, ok := s.WorkingSet(); !ok || !slices.Equal(got.Runs(), need.Runs()) {
		t.Errorf("the working set is %v, %v", got, ok)
	}
	if n := s.Prefetch(); n == 0 || n > need.Count()*4096 {
		t.Errorf("%d bytes read ahead", n)
	}
	path := filepath.Join(dir, workingSetFile)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, ram(2)) // another snapshot in its place
	other, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	var beyond Pages
	beyond.Add(ramSize/4096-1, 2)
	if err := other.NoteWorkingSet(beyond); err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{nil, good, good[:len(good)/2]} {
		if b != nil {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if p, ok := other.WorkingSet(); ok {
			t.Errorf("the working set %v was taken from %q", p, b)
		}
	}
	if n := other.Prefetch(); n != other.Stored() {
		t.Errorf("%d bytes read ahead of %d stored", n, other.Stored())
	}
}

func FuzzWorkingSet(f *testing.F) {
	dir := filepath.Join(f.TempDir(), "s")
	write(f, dir, ram(1))
	s, err := Open(dir)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	var need Pages
	need.Add(3, 2)
	if err := s.NoteWorkingSet(need); err != nil {
		f.Fatal(err)
	}
	path := filepath.Join(dir, workingSetFile)
	b, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if p, ok := s.WorkingSet(); ok && p.Count() > ramSize/4096 {
			t.Errorf("%d pages of %d", p.Count(), ramSize/4096)
		}
	})
}
