package boot

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/therootcompany/xz"
)

// An initial RAM disk is cpio archives one after the other, zeros between
// them, and any may be packed (Linux Documentation/driver-api/early-userspace/
// buffer-format.rst). A header of an archive's file:
//
//	0  magic (6) = "070701", "070702"    54  file size (8), hexadecimal
//	6  inode … modification time (48)    94  size of the name (8) with its NUL
//	                                    110  name, padded to 4; contents, padded to 4
const (
	cpioHeaderSize = 110
	cpioFileSize   = 54
	cpioNameSize   = 94
	cpioTrailer    = "TRAILER!!!\x00"
)

// initrdFormats are what the tools of distributions pack with, by the first
// bytes: those whose readers tell where the packed archive ends, or read on.
var initrdFormats = []struct {
	magic  string
	unpack func(w io.Writer, b []byte, limit uint64) error
}{
	{"\x1f\x8b", gunzip},
	{"\x28\xb5\x2f\xfd", func(w io.Writer, b []byte, limit uint64) error {
		z, err := newZstd(b)
		if err != nil {
			return err
		}
		if c, ok := z.(interface{ Close() }); ok {
			defer c.Close()
		}
		return copyAtMost(w, z, limit)
	}},
	{"\xfd7zXZ\x00", func(w io.Writer, b []byte, limit uint64) error {
		z, err := xz.NewReader(bytes.NewReader(b), maxDict)
		if err != nil {
			return err
		}
		return copyAtMost(w, z, limit)
	}},
}

func gunzip(w io.Writer, b []byte, limit uint64) error {
	// What can be read by bytes is read no further than the packed data go
	// (package compress/flate).
	r := bytes.NewReader(b)
	z, err := gzip.NewReader(r)
	if err != nil {
		return err
	}
	z.Multistream(false)
	if err := copyAtMost(w, z, limit); err != nil {
		return err
	}
	if len(bytes.TrimLeft(b[len(b)-r.Len():], "\x00")) > 0 {
		return errors.New("something follows the packed archive")
	}
	return nil
}

var errTooLarge = errors.New("too large")

func copyAtMost(w io.Writer, r io.Reader, limit uint64) error {
	n, err := io.Copy(w, io.LimitReader(r, int64(limit)+1))
	if err == nil && uint64(n) > limit {
		return errTooLarge
	}
	return err
}

// unpackInitrd is an initial RAM disk whose last archive is packed, as it would
// be without that, in at most limit bytes. What is not of this form is an
// error: the kernel knows more of them, and is left to it.
func unpackInitrd(b []byte, limit uint64) (out []byte, err error) {
	defer func() { // see unpackWith
		if p := recover(); p != nil {
			out, err = nil, fmt.Errorf("decoder failed: %v", p)
		}
	}()
	end, err := archivesEnd(b)
	if err != nil {
		return nil, err
	}
	front, packed := b[:end], b[end:]
	if uint64(len(front)) > limit {
		return nil, errTooLarge
	}
	for _, f := range initrdFormats {
		if !bytes.HasPrefix(packed, []byte(f.magic)) {
			continue
		}
		buf := bytes.NewBuffer(bytes.Clone(front))
		// The kernel takes an archive only where a multiple of 4 begins
		// (init/initramfs.c, unpack_to_rootfs).
		buf.Write(make([]byte, -len(front)&3))
		start := buf.Len()
		if err := f.unpack(buf, packed, limit-min(limit, uint64(start))); err != nil {
			return nil, err
		}
		archives := buf.Bytes()[start:]
		if end, err := archivesEnd(archives); err != nil || !isCPIO(archives) || end < len(archives) {
			return nil, errors.Join(errors.New("what was packed is no archive"), err)
		}
		return buf.Bytes(), nil
	}
	return nil, errors.New("no packed archive that is known")
}

// archivesEnd is where the cpio archives end that b begins with, and the zeros
// behind them: 0 if there is none.
func archivesEnd(b []byte) (int, error) {
	at := 0
	for at < len(b) {
		switch {
		case b[at] == 0:
			at++
		case at&3 == 0 && isCPIO(b[at:]):
			n, err := archiveSize(b[at:])
			if err != nil {
				return 0, fmt.Errorf("archive at %#x: %w", at, err)
			}
			at += n
		default:
			return at, nil
		}
	}
	return at, nil
}

func isCPIO(b []byte) bool {
	return bytes.HasPrefix(b, []byte("070701")) || bytes.HasPrefix(b, []byte("070702"))
}

// archiveSize is the size of the archive that b begins with.
func archiveSize(b []byte) (int, error) {
	for at := 0; ; {
		if len(b)-at < cpioHeaderSize || !isCPIO(b[at:]) {
			return 0, fmt.Errorf("no header of a file at %#x", at)
		}
		size, err := hexField(b[at+cpioFileSize:])
		if err != nil {
			return 0, err
		}
		nameSize, err := hexField(b[at+cpioNameSize:])
		if err != nil {
			return 0, err
		}
		// Sums of 32-bit numbers fit in an int.
		contents := (cpioHeaderSize + nameSize + 3) &^ 3
		next := at + (contents+size+3)&^3
		if next > len(b) {
			return 0, fmt.Errorf("the file at %#x is cut off", at)
		}
		if string(b[at+cpioHeaderSize:at+cpioHeaderSize+nameSize]) == cpioTrailer {
			return next, nil
		}
		at = next
	}
}

func hexField(b []byte) (int, error) {
	n, err := strconv.ParseUint(string(b[:8]), 16, 32)
	return int(n), err
}
