package snapshot

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// maxChain is how many snapshots may stand on one another.
const maxChain = 64

// Snapshot is an open snapshot: its files stay what they are until Close,
// whatever happens to the folder.
type Snapshot struct {
	Path  string
	ID    ID
	State *State
	Base  *Snapshot // what it builds on; nil for a whole one

	memory *os.File
}

// Open opens the snapshot in the folder at path, and those that it builds on.
// Header and state are checked whole, memory by its size.
func Open(path string) (*Snapshot, error) {
	s, err := open(path, maxChain)
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", path, err)
	}
	return s, nil
}

func open(path string, depth int) (*Snapshot, error) {
	if depth == 0 {
		return nil, fmt.Errorf("%w: it builds on more than %d others", ErrDamaged, maxChain)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	s, err := openOne(path)
	if err != nil {
		return nil, err
	}
	if s.State.Base == nil {
		return s, nil
	}
	if s.Base, err = s.openBase(depth); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func openOne(path string) (*Snapshot, error) {
	b, err := readState(filepath.Join(path, stateFile))
	if err != nil {
		return nil, err
	}
	h, err := decodeHeader(b)
	if err != nil {
		return nil, err
	}
	b = b[headerSize:]
	if uint64(len(b)) != h.stateLen || sha256.Sum256(b) != h.stateHash {
		return nil, fmt.Errorf("%w: the state's length or checksum is wrong", ErrDamaged)
	}
	s := &Snapshot{Path: path, ID: h.id}
	if s.State, err = decodeState(b, h.memoryLen); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if s.memory, err = os.Open(filepath.Join(path, memoryFile)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	info, err := s.memory.Stat()
	if err == nil && uint64(info.Size()) != h.memoryLen {
		err = fmt.Errorf("%w: memory has %d bytes, and should have %d", ErrDamaged, info.Size(), h.memoryLen)
	}
	if err != nil {
		return nil, errors.Join(err, s.memory.Close())
	}
	return s, nil
}

func readState(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: there is no file %s", ErrNotSnapshot, path)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > headerSize+maxState {
		return nil, fmt.Errorf("%w: %s is no file that one has", ErrNotSnapshot, path)
	}
	b := make([]byte, info.Size())
	_, err = io.ReadFull(f, b)
	return b, err
}

// openBase opens what s builds on.
func (s *Snapshot) openBase(depth int) (*Snapshot, error) {
	path := s.State.Base.Path
	if !filepath.IsAbs(path) {
		path = filepath.Join(s.Path, path)
	}
	b, err := open(path, depth-1)
	if err != nil {
		return nil, fmt.Errorf("the snapshot %s that it builds on: %w", path, err)
	}
	switch {
	case b.ID != s.State.Base.ID:
		err = fmt.Errorf("the snapshot %s that it builds on has been replaced by another", path)
	case !sameLayout(b.State.Memory, s.State.Memory):
		err = fmt.Errorf("%w: the snapshot %s that it builds on has other memory", ErrDamaged, path)
	}
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

func sameLayout(a, b []Region) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Base != b[i].Base || a[i].Size != b[i].Size || a[i].Kind != b[i].Kind || a[i].External != b[i].External || (a[i].Image == nil) != (b[i].Image == nil) {
			return false
		}
	}
	return true
}

// Close closes the snapshot's files. Memory that was mapped stays.
func (s *Snapshot) Close() error {
	err := s.memory.Close()
	if s.Base != nil {
		err = errors.Join(err, s.Base.Close())
	}
	return err
}

// Verify reads all of memory and compares it with its checksums.
func (s *Snapshot) Verify() error {
	if err := verify(s.memory, &s.State.Pages, s.State.Sums); err != nil {
		return fmt.Errorf("snapshot %s: %w", s.Path, err)
	}
	if s.Base != nil {
		return s.Base.Verify()
	}
	return nil
}

// Layers are the snapshots that make up this one, the whole one first.
func (s *Snapshot) Layers() []*Snapshot {
	if s.Base == nil {
		return []*Snapshot{s}
	}
	return append(s.Base.Layers(), s)
}

// Stored is how many bytes of memory this snapshot's own file has.
func (s *Snapshot) Stored() uint64 { return s.State.Pages.Count() * memory.PageSize }

// Disk is how many bytes the snapshot's memory takes on the disk.
func (s *Snapshot) Disk() uint64 { return diskUsage(s.memory) }

// Map makes guest memory of the snapshot's: its pages are the memory file's
// until the guest writes to them. image opens the file that a region shows.
// External regions are the caller's to add.
func (s *Snapshot) Map(image func(*Image) (*os.File, error)) (*memory.Guest, error) {
	g := memory.NewEmpty()
	if err := s.mapInto(g, image); err != nil {
		return nil, errors.Join(fmt.Errorf("snapshot %s: %w", s.Path, err), g.Close())
	}
	return g, nil
}

func (s *Snapshot) mapInto(g *memory.Guest, image func(*Image) (*os.File, error)) error {
	layers := s.Layers()
	for i := range s.State.Memory {
		r := &s.State.Memory[i]
		if r.External {
			continue
		}
		if r.Image == nil {
			err := g.AddFile(memory.Addr(r.Base), layers[0].memory, int64(r.Offset), r.Size, false, r.Kind, r.ReadOnly)
			if err != nil {
				return err
			}
			continue
		}
		if err := mapImage(g, r, image); err != nil {
			return err
		}
		// The whole snapshot's file has only what the guest wrote there.
		if err := layers[0].overlay(g, r); err != nil {
			return err
		}
	}
	for _, l := range layers[1:] {
		for i := range l.State.Memory {
			if err := l.overlay(g, &l.State.Memory[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func mapImage(g *memory.Guest, r *Region, image func(*Image) (*os.File, error)) error {
	f, err := image(r.Image)
	if err != nil {
		return err
	}
	defer f.Close()
	return g.AddFile(memory.Addr(r.Base), f, 0, r.Size, false, r.Kind, r.ReadOnly)
}

// overlay puts this snapshot's pages of a region over what is there.
func (s *Snapshot) overlay(g *memory.Guest, r *Region) error {
	for run := range s.State.Pages.Within(r.Offset/memory.PageSize, r.Size/memory.PageSize) {
		off := run.First * memory.PageSize
		if err := g.MapFile(memory.Addr(r.Base+off-r.Offset), s.memory, int64(off), run.Count*memory.PageSize); err != nil {
			return err
		}
	}
	return nil
}
