package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vitrine-vmm/vitrine/devices/virtio/blk"
	"github.com/vitrine-vmm/vitrine/vmm/disk/qcow2"
)

const (
	maxBacking   = 32 // images in a chain; more is a loop
	qcow2Workers = 8
)

func openQCOW2(o Options) (blk.Backend, error) {
	s, err := openImage(o, 0)
	if err != nil {
		return nil, err
	}
	if o.Engine == EngineInline {
		return blk.Inline(s), nil
	}
	return blk.Pool(s, qcow2Workers), nil
}

// openImage opens an image and, read-only, what it lies over.
func openImage(o Options, depth int) (blk.Store, error) {
	f, err := openRaw(o)
	if err != nil {
		return nil, err
	}
	return qcow2.Open(f, f.size, qcow2.Options{
		ReadOnly: o.ReadOnly, ID: o.ID,
		OpenBacking: func(name, format string) (blk.Store, error) {
			return openBacking(o, name, format, depth+1)
		},
	})
}

// openBacking opens the file that the image of o lies over. A relative name is
// relative to the image.
func openBacking(o Options, name, format string, depth int) (blk.Store, error) {
	if depth > maxBacking {
		return nil, errors.New("more backing files than anybody needs: is there a loop?")
	}
	if before, _, found := strings.Cut(name, ":"); found && !strings.Contains(before, "/") {
		return nil, fmt.Errorf("%q is not a file's name", name)
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(filepath.Dir(o.Path), name)
	}
	b := Options{Path: name, ReadOnly: true, Direct: o.Direct}
	var s blk.Store
	var err error
	switch Format(format) {
	case Raw:
		s, err = openRaw(b)
	case QCOW2:
		s, err = openImage(b, depth)
	default:
		err = fmt.Errorf("format %q: want %q or %q", format, Raw, QCOW2)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

// CreateOverlay makes a disk image at path, which must not exist, that shows
// what the disk base shows until it is written to. Base must not change as
// long as the overlay is used: it is to be opened read-only only.
//
// Where base is raw and its file system shares blocks between files, the
// overlay is such a copy, raw too, and does not need base. Otherwise it is a
// qcow2 image with base as its backing file. The format that was chosen is
// returned.
func CreateOverlay(path, base string, baseFormat Format) (Format, error) {
	if baseFormat == "" {
		baseFormat = Raw
	}
	if baseFormat == Raw && reflink(path, base) == nil {
		return Raw, nil
	}
	b, err := Open(Options{Path: base, ReadOnly: true, Format: baseFormat})
	if err != nil {
		return "", fmt.Errorf("overlay: %w", err)
	}
	size := b.Info().Size
	if err := b.Close(); err != nil {
		return "", err
	}
	name, err := filepath.Abs(base)
	if err != nil {
		return "", fmt.Errorf("overlay over %s: %w", base, err)
	}
	o := qcow2.CreateOptions{Size: size, Backing: name, BackingFormat: string(baseFormat)}
	if err := qcow2.Create(path, o); err != nil {
		return "", fmt.Errorf("overlay over %s: %w", base, err)
	}
	return QCOW2, nil
}

// Create makes an empty disk of size bytes at path, which must not exist.
func Create(path string, size int64, format Format) error {
	switch format {
	case QCOW2:
		return qcow2.Create(path, qcow2.CreateOptions{Size: size})
	case Raw, "":
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return fmt.Errorf("create disk: %w", err)
		}
		if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
			return errors.Join(fmt.Errorf("create disk: %w", err), os.Remove(path))
		}
		return nil
	}
	return fmt.Errorf("create disk: format %q: want %q or %q", format, Raw, QCOW2)
}
