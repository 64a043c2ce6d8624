package boot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/anchore/go-lzo"
	"github.com/pierrec/lz4/v4"
)

// lz4Block is the size of the blocks of lz4's legacy frame when unpacked.
const lz4Block = 8 << 20

// lz4Reader reads the legacy frame of lz4 (lz4_Frame_format.md, "Legacy
// frame"), the only one that kernels use, after its magic:
//
//	0  size of the block (4)   or another magic: a further frame follows
//	4  block                   unpacks to 8 MiB, the last one to less
type lz4Reader struct {
	in, block, out []byte // out is what is left of block
}

func (z *lz4Reader) Read(p []byte) (int, error) {
	for len(z.out) == 0 {
		if len(z.in) < 4 {
			if len(z.in) > 0 {
				return 0, io.ErrUnexpectedEOF
			}
			return 0, io.EOF
		}
		n := binary.LittleEndian.Uint32(z.in)
		z.in = z.in[4:]
		if n == 0x184c2102 {
			continue
		}
		if uint64(n) > uint64(len(z.in)) {
			return 0, io.ErrUnexpectedEOF
		}
		if z.block == nil {
			z.block = make([]byte, lz4Block)
		}
		m, err := lz4.UncompressBlock(z.in[:n], z.block)
		if err != nil {
			return 0, err
		}
		z.in, z.out = z.in[n:], z.block[:m]
	}
	n := copy(p, z.out)
	z.out = z.out[n:]
	return n, nil
}

const (
	lzopMagic = "\x89LZO\x00\r\n\x1a\n"

	lzopAdler32D = 1 << 0 // flags: each block has an Adler-32 of what it unpacks to
	lzopAdler32C = 1 << 1 // … and of itself
	lzopCRC32D   = 1 << 8
	lzopCRC32C   = 1 << 9
	lzopExtra    = 1 << 6
	lzopFilter   = 1 << 11
	lzopVersion  = 0x0940 // the first one with a level and the high half of mtime
	lzopBlock    = 256 << 10
)

// lzopReader reads the container of lzop (its src/lzop.c, "read_header" and
// "decompress"; lib/decompress_unlzo.c in Linux). Numbers are big-endian.
//
//	 0  magic (9)
//	 9  version (2), library version (2), version needed (2, from 0x0940)
//	15  method (1), level (1, from 0x0940)
//	17  flags (4), filter (4, if flags say so)
//	21  mode (4), mtime (4), high mtime (4, from 0x0940)
//	33  length of the name (1), name, checksum of the header (4)
//
// Blocks follow: unpacked size (4), 0 ends them; packed size (4); checksums of
// the unpacked bytes, then of the packed ones if there are fewer (4 each, as
// the flags say); packed bytes, or the bytes as such if both sizes are equal.
type lzopReader struct {
	in, block, out []byte
	flags          uint32
	done           bool
}

func newLzop(b []byte) (io.Reader, error) {
	z := &lzopReader{in: b[len(lzopMagic):]}
	version := z.uint(2)
	z.skip(2)
	if version >= lzopVersion {
		z.skip(2)
	}
	z.skip(1)
	if version >= lzopVersion {
		z.skip(1)
	}
	z.flags = z.uint(4)
	if z.flags&lzopFilter != 0 {
		z.skip(4)
	}
	z.skip(8)
	if version >= lzopVersion {
		z.skip(4)
	}
	z.skip(uint64(z.uint(1)))
	z.skip(4)
	if z.flags&lzopExtra != 0 {
		return nil, errors.New("lzop header with an extra field")
	}
	if z.in == nil {
		return nil, io.ErrUnexpectedEOF
	}
	return z, nil
}

// skip and uint take bytes off the input; past its end they leave it nil.
func (z *lzopReader) skip(n uint64) {
	if n > uint64(len(z.in)) {
		z.in = nil
		return
	}
	z.in = z.in[n:]
}

func (z *lzopReader) uint(n uint64) (v uint32) {
	b := z.in
	if z.skip(n); z.in == nil {
		return 0
	}
	for _, c := range b[:n] {
		v = v<<8 | uint32(c)
	}
	return v
}

func (z *lzopReader) Read(p []byte) (int, error) {
	for len(z.out) == 0 {
		if z.done {
			return 0, io.EOF
		}
		if err := z.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, z.out)
	z.out = z.out[n:]
	return n, nil
}

func (z *lzopReader) next() error {
	unpacked := z.uint(4)
	if z.in == nil {
		return io.ErrUnexpectedEOF
	}
	if unpacked == 0 {
		z.done = true
		return nil
	}
	packed := z.uint(4)
	if unpacked > lzopBlock || packed > unpacked {
		return fmt.Errorf("lzop block of %d bytes packed to %d", unpacked, packed)
	}
	for _, flag := range []uint32{lzopAdler32D, lzopCRC32D} {
		if z.flags&flag != 0 {
			z.skip(4)
		}
	}
	for _, flag := range []uint32{lzopAdler32C, lzopCRC32C} {
		if z.flags&flag != 0 && packed < unpacked {
			z.skip(4)
		}
	}
	src := z.in
	if z.skip(uint64(packed)); z.in == nil {
		return io.ErrUnexpectedEOF
	}
	if src = src[:packed]; packed == unpacked {
		z.out = src
		return nil
	}
	if z.block == nil {
		z.block = make([]byte, lzopBlock)
	}
	n, err := lzo.Decompress(src, z.block[:unpacked])
	if err != nil {
		return err
	}
	if n != int(unpacked) {
		return fmt.Errorf("lzop block unpacks to %d bytes, not %d", n, unpacked)
	}
	z.out = z.block[:n]
	return nil
}
