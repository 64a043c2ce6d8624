package boot

import (
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
	"github.com/ulikunitz/xz/lzma"
)

// maxUnpacked bounds what a payload may unpack to. A distribution's kernel
// takes 50 to 100 MiB.
const maxUnpacked = 1 << 30

// maxDict bounds the dictionaries and windows that decoders allocate: zstd
// --ultra -22 and xz for kernels use 128 MiB.
const maxDict = 128 << 20

// formats are what a Linux build can pack its payload with
// (arch/x86/boot/compressed/Makefile), by the first bytes.
var formats = []struct {
	name, magic string
	reader      func([]byte) (io.Reader, error)
}{
	{"none", elfMagic, func(b []byte) (io.Reader, error) { return bytes.NewReader(b), nil }},
	{"gzip", "\x1f\x8b", func(b []byte) (io.Reader, error) {
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err == nil {
			z.Multistream(false)
		}
		return z, err
	}},
	{"zstd", "\x28\xb5\x2f\xfd", newZstd},
	// The kernel's xz payload has the x86 branch filter, which
	// github.com/ulikunitz/xz does not know.
	{"xz", "\xfd7zXZ\x00", func(b []byte) (io.Reader, error) { return xz.NewReader(bytes.NewReader(b), maxDict) }},
	{"lz4", "\x02\x21\x4c\x18", func(b []byte) (io.Reader, error) { return &lz4Reader{in: b[4:]}, nil }},
	{"lzma", "\x5d\x00\x00", newLZMA},
	{"bzip2", "BZh", func(b []byte) (io.Reader, error) { return bzip2.NewReader(bytes.NewReader(b)), nil }},
	{"lzo", lzopMagic, newLzop},
}

func newZstd(b []byte) (io.Reader, error) {
	return zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderMaxWindow(maxDict), zstd.WithDecoderConcurrency(1))
}

func newLZMA(b []byte) (io.Reader, error) {
	return lzma.ReaderConfig{DictCap: maxDict}.NewReader(bytes.NewReader(b))
}

// unpack unpacks the payload of a bzImage, which must give an ELF. The build
// appends the unpacked size in 4 bytes (size_append in scripts/Makefile.lib);
// gzip has the same number at its own end, and an unpacked payload has none.
func unpack(payload []byte) (elf []byte, format string, err error) {
	for _, f := range formats {
		if len(payload) < len(f.magic) || string(payload[:len(f.magic)]) != f.magic {
			continue
		}
		want := uint64(len(payload))
		if f.name != "none" {
			if len(payload) < len(f.magic)+4 {
				return nil, f.name, io.ErrUnexpectedEOF
			}
			want = uint64(binary.LittleEndian.Uint32(payload[len(payload)-4:]))
			if f.name != "gzip" {
				payload = payload[:len(payload)-4]
			}
		}
		elf, err = unpackWith(f.reader, payload, want)
		if err != nil {
			return nil, f.name, fmt.Errorf("unpack %s payload: %w", f.name, err)
		}
		if !bytes.HasPrefix(elf, []byte(elfMagic)) {
			return nil, f.name, fmt.Errorf("the %s payload is no ELF", f.name)
		}
		return elf, f.name, nil
	}
	return nil, "", fmt.Errorf("payload in an unknown format (% x)", payload[:min(len(payload), 8)])
}

func unpackWith(open func([]byte) (io.Reader, error), b []byte, want uint64) (out []byte, err error) {
	// The libraries read what anybody may have written: should one of them
	// trip, the kernel does not unpack, and the VMM goes on.
	defer func() {
		if p := recover(); p != nil {
			out, err = nil, fmt.Errorf("decoder failed: %v", p)
		}
	}()
	if want > maxUnpacked {
		return nil, fmt.Errorf("%d bytes unpacked: at most %d are allowed", want, maxUnpacked)
	}
	r, err := open(b)
	if err != nil {
		return nil, err
	}
	if c, ok := r.(interface{ Close() }); ok { // zstd.Decoder
		defer c.Close()
	}
	// The size comes from the file: take no more memory for it than the
	// compressed bytes make likely.
	var buf bytes.Buffer
	buf.Grow(int(min(want, uint64(len(b))*16)) + bytes.MinRead)
	if _, err := io.Copy(&buf, io.LimitReader(r, int64(want)+1)); err != nil {
		return nil, err
	}
	if uint64(buf.Len()) != want {
		return nil, errors.New("unpacked size differs from the one that the image gives")
	}
	return buf.Bytes(), nil
}
