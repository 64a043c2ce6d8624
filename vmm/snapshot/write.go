package snapshot

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Writer makes a snapshot in a folder beside its place, where nobody looks for
// one, until Commit moves it.
type Writer struct {
	place  string // where it is to be
	dir    string // where it is now
	lock   *os.File
	memory *os.File
	size   uint64
	id     ID
	noSync bool
	state  struct {
		pages Pages
		sums  []uint32
	}
}

// Create begins a snapshot that is to be the folder at path. A folder that is
// there already must be empty or a snapshot; it stays as it is until Commit.
func Create(path string) (*Writer, error) {
	place, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := replaceable(place); err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", path, err)
	}
	parent := filepath.Dir(place)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", path, err)
	}
	sweep(place)
	w := &Writer{place: place, id: newID()}
	w.dir = newName(place)
	if err := os.Mkdir(w.dir, 0o700); err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", path, err)
	}
	if w.lock, err = lockFolder(w.dir); err == nil {
		w.memory, err = os.OpenFile(w.Path(memoryFile), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err != nil {
		w.Abort()
		return nil, fmt.Errorf("snapshot %s: %w", path, err)
	}
	return w, nil
}

// replaceable says why the folder at path cannot be replaced, if so.
func replaceable(path string) error {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(path, stateFile))
	if err == nil {
		defer f.Close()
		b := make([]byte, len(magic))
		if _, err := f.Read(b); err == nil && string(b) == magic {
			return nil
		}
	}
	return errors.New("the folder has other files than a snapshot's: choose another")
}

// newName is a name beside place for a snapshot in the making.
func newName(place string) string {
	var b [6]byte
	_, _ = rand.Read(b[:])
	return fmt.Sprintf("%s%x", newPrefix(place), b)
}

func newPrefix(place string) string {
	return filepath.Join(filepath.Dir(place), "."+filepath.Base(place)+".new-")
}

// sweep removes what writers for the same place have left that were killed.
func sweep(place string) {
	entries, err := os.ReadDir(filepath.Dir(place))
	if err != nil {
		return
	}
	for _, e := range entries {
		dir := filepath.Join(filepath.Dir(place), e.Name())
		if !e.IsDir() || !strings.HasPrefix(dir, newPrefix(place)) {
			continue
		}
		if lock, err := lockFolder(dir); err == nil {
			_ = os.RemoveAll(dir)
			_ = lock.Close()
		}
	}
}

// ID is the snapshot's identity.
func (w *Writer) ID() ID { return w.id }

// NoSync has Commit not wait for the disk: after a crash of the host, the
// snapshot may be damaged.
func (w *Writer) NoSync() { w.noSync = true }

// Path is where a file of the snapshot is to be written. Files beside the
// state and the memory are the caller's.
func (w *Writer) Path(file string) string { return filepath.Join(w.dir, file) }

// WriteMemory writes pages of the parts, which are the whole memory file in
// order, and returns when they are written. With keepZero pages of zeros are
// stored too, as holes: where another snapshot is under this one.
func (w *Writer) WriteMemory(ps []Part, pages *Pages, keepZero bool) error {
	w.size = 0
	for _, p := range ps {
		w.size += uint64(len(p.Bytes))
	}
	if err := w.memory.Truncate(int64(w.size)); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	var err error
	chunks := int((w.size + SumChunk - 1) / SumChunk)
	w.state.pages, w.state.sums, err = dump(w.memory, ps, pages, chunks, keepZero)
	if err != nil {
		return fmt.Errorf("snapshot: write memory: %w", err)
	}
	return nil
}

// Commit writes the state and puts the snapshot in its place. Pages and Sums
// are filled in.
func (w *Writer) Commit(s *State) error {
	err := w.commit(s)
	if err != nil {
		w.Abort()
		return fmt.Errorf("snapshot %s: %w", w.place, err)
	}
	return nil
}

func (w *Writer) commit(s *State) error {
	s.Pages, s.Sums = w.state.pages, w.state.sums
	if err := s.check(w.size); err != nil {
		return err
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	h := header{version: Version, id: w.id, stateLen: uint64(len(b)), memoryLen: w.size, stateHash: sha256.Sum256(b)}
	if err := os.WriteFile(w.Path(stateFile), append(h.encode(), b...), 0o600); err != nil {
		return err
	}
	if !w.noSync {
		if err := syncFolder(w.dir); err != nil {
			return err
		}
	}
	old, err := exchange(w.dir, w.place)
	if err != nil {
		return err
	}
	if old != "" {
		_ = os.RemoveAll(old)
	}
	w.dir = ""
	w.Abort()
	if w.noSync {
		return nil
	}
	return syncFile(filepath.Dir(w.place))
}

// Abort ends the writer and removes what it has written, unless it has been
// committed.
func (w *Writer) Abort() {
	if w.memory != nil {
		_ = w.memory.Close()
	}
	if w.dir != "" {
		_ = os.RemoveAll(w.dir)
		w.dir = ""
	}
	if w.lock != nil {
		_ = w.lock.Close()
	}
	w.memory, w.lock = nil, nil
}

// syncFolder has the files of a folder, and then the folder itself, written to
// the disk.
func syncFolder(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := syncFile(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return syncFile(dir)
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
