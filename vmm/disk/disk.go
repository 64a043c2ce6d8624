// Package disk opens what a guest's disks are kept in: files and block
// devices, in a format that the user names.
package disk

import (
	"errors"
	"fmt"

	"github.com/vitrine-vmm/vitrine/devices/virtio/blk"
)

// Format is how a disk's data lies in its file.
type Format string

// Formats.
const (
	Raw   Format = "raw"   // byte for byte
	QCOW2 Format = "qcow2" // the format of QEMU's images, versions 2 and 3
)

// Engine is how a raw file is read and written.
type Engine string

// Engines.
const (
	EngineAuto    Engine = "" // the fastest that host and file allow
	EngineIOURing Engine = "io_uring"
	EnginePool    Engine = "pool"   // a pool of threads
	EngineInline  Engine = "inline" // no concurrency: for files in memory
)

// Options say what to open.
type Options struct {
	Path     string
	ReadOnly bool
	Direct   bool   // past the host's page cache (O_DIRECT)
	Format   Format // "" is raw: formats are never guessed
	ID       string // serial number shown to the guest, up to 20 bytes
	IOPS     int64  // requests a second at most; 0 is no limit
	BPS      int64  // bytes a second at most; 0 is no limit
	Engine   Engine

	// Over is where what is written goes instead of the file, which is only
	// read: a layer of the caller's. Before is where the blocks of the file
	// are kept as they were before they are first written to. Both are for
	// raw files that are not ReadOnly, and with a layer the engine is
	// EngineInline or EnginePool.
	Over, Before *Layer
}

// maxID is VIRTIO_BLK_ID_BYTES (virtio 1.2 §5.2.6).
const maxID = 20

// ErrInUse is wrapped by the error of Open when another process, or another
// disk of this one, has the file open in a way that excludes this one.
var ErrInUse = errors.New("in use by another process")

// Open opens the disk that o describes, and locks its file until Close: a disk
// that is written to has one user, one that is only read any number.
func Open(o Options) (blk.Backend, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	b, err := open(o)
	if err != nil {
		return nil, fmt.Errorf("disk %s: %w", o.Path, err)
	}
	if o.IOPS > 0 || o.BPS > 0 {
		b = Limit(b, o.IOPS, o.BPS)
	}
	return b, nil
}

func (o *Options) check() error {
	switch {
	case o.Path == "":
		return errors.New("disk: no file given")
	case len(o.ID) > maxID:
		return fmt.Errorf("disk %s: id %q is longer than %d bytes", o.Path, o.ID, maxID)
	case o.Format != "" && o.Format != Raw && o.Format != QCOW2:
		return fmt.Errorf("disk %s: format %q: want %q or %q", o.Path, o.Format, Raw, QCOW2)
	case o.IOPS < 0 || o.BPS < 0:
		return fmt.Errorf("disk %s: a limit below 0", o.Path)
	case (o.Over != nil || o.Before != nil) && (o.Format == QCOW2 || o.Engine == EngineIOURing || o.Over != nil && o.Before != nil):
		return fmt.Errorf("disk %s: a layer is one, for a raw file and no engine of the file's own", o.Path)
	case o.Format == QCOW2 && o.Engine == EngineIOURing:
		return fmt.Errorf("disk %s: engine %q is for raw files", o.Path, o.Engine)
	}
	switch o.Engine {
	case EngineAuto, EngineIOURing, EnginePool, EngineInline:
		return nil
	}
	return fmt.Errorf("disk %s: engine %q: want %q, %q or %q", o.Path, o.Engine, EngineIOURing, EnginePool, EngineInline)
}

func open(o Options) (blk.Backend, error) {
	if o.Format == QCOW2 {
		return openQCOW2(o)
	}
	if !o.ReadOnly && (o.Over != nil || o.Before != nil) {
		return openLayered(o)
	}
	f, err := openRaw(o)
	if err != nil {
		return nil, err
	}
	return f.backend(o.Engine)
}

func openLayered(o Options) (blk.Backend, error) {
	o.ReadOnly = o.Over != nil
	f, err := openRaw(o)
	if err != nil {
		return nil, err
	}
	var s blk.Store = &remembered{f, o.Before}
	if o.Over != nil {
		s = newLayered(f, o.Over)
	}
	if o.Engine == EngineInline {
		return blk.Inline(s), nil
	}
	return blk.Pool(s, poolWorkers), nil
}
