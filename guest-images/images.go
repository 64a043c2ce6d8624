// Package guestimages is the default guest: two Linux kernels and a root file
// system, embedded compressed and unpacked into a cache when first used.
//
// kernel/ and rootfs/ have the recipes, images/ what they make, with its
// provenance; docs/guest-images.md describes all of it.
package guestimages

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// Names of the images.
const (
	KernelLean = "kernel-lean" // ELF with a PVH note: virtio-mmio, MP table, no ACPI, no PCI
	KernelFull = "kernel-full" // the same with ACPI, PCI, cgroups, netfilter, …
	RootFS     = "rootfs"      // EROFS, uncompressed, a multiple of 2 MiB: for Config.PMEMImage
	Init       = "init"        // the root's /init alone, a static program, for roots of one's own
)

// Kernels are the kernels' short names, the default first. The image of kernel
// k is "kernel-" + k.
func Kernels() []string { return []string{"lean", "full"} }

// Nothing of this is looked at before Path is called.
//
//go:embed images/manifest images/*.zst
var files embed.FS

// image is a line of the manifest.
type image struct {
	name string
	size int64
	sum  string // SHA-256, hexadecimal
}

// ErrUnknown is wrapped by Path when there is no image of that name.
var ErrUnknown = errors.New("no such embedded image")

func lookUp(name string) (image, error) {
	manifest, err := files.ReadFile("images/manifest")
	if err != nil {
		return image{}, err
	}
	for line := range strings.Lines(string(manifest)) {
		f := strings.Fields(line)
		if len(f) != 3 || f[0] != name {
			continue
		}
		size, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil || len(f[2]) != sha256.Size*2 {
			return image{}, fmt.Errorf("embedded image %s: damaged manifest line %q", name, line)
		}
		return image{name, size, f[2]}, nil
	}
	return image{}, fmt.Errorf("%w: %s", ErrUnknown, name)
}

// Path is the path of an image, unpacked below cacheDir. The file's name has
// the content's hash, so that it never changes: guests may share its pages. The
// first call for an image unpacks it, which takes some tens of milliseconds;
// later ones, of any process, only look whether it is there. cacheDir is made
// if it is missing.
func Path(cacheDir, name string) (string, error) {
	img, err := lookUp(name)
	if err != nil {
		return "", err
	}
	path := filepath.Join(cacheDir, img.name+"-"+img.sum[:16])
	// Files come here by a rename when they are whole: the size tells one that
	// was damaged since from one that is what it should be.
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Size() == img.size {
		return path, nil
	}
	if err := unpack(img, path); err != nil {
		return "", fmt.Errorf("unpack the embedded %s to %s: %w", name, cacheDir, err)
	}
	return path, nil
}

// unpack writes the image under a temporary name and renames it: processes
// that do so at once each leave a whole file, and the last one stays.
func unpack(img image, path string) (err error) {
	packed, err := files.ReadFile("images/" + img.name + ".zst")
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("%w: choose another cache folder", err)
	}
	f, err := os.CreateTemp(dir, "."+img.name+"-*")
	if err != nil {
		return fmt.Errorf("%w: choose a cache folder that you may write to", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if err := decompress(img, f, packed); err != nil {
		return errors.Join(err, f.Close())
	}
	// Read and execute for nobody: the VMM maps it.
	if err := errors.Join(f.Chmod(0o400), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// decompress writes what packed holds to f, and checks it against the manifest.
func decompress(img image, f *os.File, packed []byte) error {
	r, err := zstd.NewReader(bytes.NewReader(packed), zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderMaxWindow(128<<20), zstd.WithDecoderMaxMemory(uint64(img.size)+128<<20))
	if err != nil {
		return err
	}
	defer r.Close()
	hash := sha256.New()
	w := &sparseWriter{f: f}
	n, err := io.Copy(io.MultiWriter(hash, w), io.LimitReader(r, img.size+1))
	if err != nil {
		return fmt.Errorf("%w: make room in the cache folder, or choose another", err)
	}
	if sum := hex.EncodeToString(hash.Sum(nil)); n != img.size || sum != img.sum {
		return fmt.Errorf("the image is damaged: %d bytes with SHA-256 %s, want %d and %s: build vitrine again", n, sum, img.size, img.sum)
	}
	return f.Truncate(img.size)
}

// sparseWriter leaves out pages of zeros: kernels have megabytes of them
// between their segments.
type sparseWriter struct {
	f  *os.File
	at int64
}

const page = 4096

var zeros [page]byte

func (w *sparseWriter) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		n := min(len(p), page-int(w.at%page))
		if !bytes.Equal(p[:n], zeros[:n]) {
			if _, err := w.f.WriteAt(p[:n], w.at); err != nil {
				return 0, err
			}
		}
		w.at += int64(n)
		p = p[n:]
	}
	return total, nil
}
