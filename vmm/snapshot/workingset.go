package snapshot

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// workingSetFile is beside a snapshot's other files, once a machine that was
// restored from it has shown what it needs of memory. It is no part of the
// snapshot: without it, or with a wrong one, a machine is the same.
const workingSetFile = "working-set"

const workingSetVersion = 1

// workingSet is that file: JSON.
type workingSet struct {
	Version int   `json:"version"`
	ID      ID    `json:"id"`    // of the snapshot
	Pages   Pages `json:"pages"` // of the memory file
}

// WorkingSet are the pages of the memory file that a machine which was restored
// from s has needed; ok is false if none has said so.
func (s *Snapshot) WorkingSet() (p Pages, ok bool) {
	f, err := os.Open(filepath.Join(s.Path, workingSetFile))
	if err != nil {
		return Pages{}, false
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxState))
	if err != nil {
		return Pages{}, false
	}
	var w workingSet
	if json.Unmarshal(b, &w) != nil || w.Version != workingSetVersion || w.ID != s.ID || w.Pages.end() > s.pages() {
		return Pages{}, false
	}
	return w.Pages, true
}

// pages is how many pages the memory file has, holes included.
func (s *Snapshot) pages() (n uint64) {
	for _, r := range s.State.Memory {
		n += r.Size / memory.PageSize
	}
	return n
}

// NoteWorkingSet keeps the pages that a machine has needed, for WorkingSet.
func (s *Snapshot) NoteWorkingSet(p Pages) error {
	b, err := json.Marshal(workingSet{Version: workingSetVersion, ID: s.ID, Pages: p})
	if err != nil {
		return fmt.Errorf("working set: %w", err)
	}
	f, err := os.CreateTemp(s.Path, "."+workingSetFile+"-")
	if err != nil {
		return fmt.Errorf("working set: %w", err)
	}
	_, err = f.Write(b)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(s.Path, workingSetFile))
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("working set: %w", err)
	}
	return nil
}

// Prefetch has the host read into its cache, ahead of the guest, what an
// earlier machine needed of memory, or all that is stored if none has been
// watched. It returns how many bytes that is.
func (s *Snapshot) Prefetch() (n uint64) {
	need, known := s.WorkingSet()
	for _, l := range s.Layers() {
		for _, r := range l.State.Pages.Runs() {
			if !known {
				readAhead(l.memory, r)
				n += r.Count * memory.PageSize
				continue
			}
			for part := range need.Within(r.First, r.Count) {
				readAhead(l.memory, part)
				n += part.Count * memory.PageSize
			}
		}
	}
	return n
}
