package qcow2

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/vitrine-vmm/vitrine/devices/virtio/blk"
)

// ReadVec implements blk.Store.
func (m *Image) ReadVec(vec [][]byte, off int64) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	c := cursor{vec: vec}
	at := uint64(off)
	for n := c.len(); n > 0; {
		piece, err := m.readPiece(&c, at, n)
		if err != nil {
			return err
		}
		at, n = at+piece, n-piece
	}
	return nil
}

// readPiece reads up to n bytes that lie together, and returns how many.
func (m *Image) readPiece(c *cursor, at, n uint64) (uint64, error) {
	e, err := m.entry(at)
	if err != nil {
		return 0, err
	}
	k, off, err := m.decode(e)
	if err != nil {
		return 0, err
	}
	_, _, in := m.place(at)
	piece := min(n, m.h.clusterSize()-in)
	switch k {
	case zero:
		c.zero(piece)
		return piece, nil
	case absent:
		return piece, m.readBacking(c.take(piece), at, piece)
	case compressed:
		b, err := m.inflate(e)
		if err != nil {
			return 0, err
		}
		c.fill(b[in : in+piece])
		return piece, nil
	}
	// Clusters that follow each other in the file are one read.
	for next := piece; next < n; next = piece {
		e, err := m.entry(at + next)
		if err != nil {
			return 0, err
		}
		if k2, off2, err := m.decode(e); err != nil || k2 != data || off2 != off+in+next {
			break
		}
		piece += min(n-next, m.h.clusterSize())
	}
	return piece, m.file.ReadVec(c.take(piece), int64(off+in))
}

// readBacking fills vec from the backing file, and with zeros behind its end.
func (m *Image) readBacking(vec [][]byte, at, n uint64) error {
	c := cursor{vec: vec}
	if m.backing != nil {
		if size := uint64(m.backing.Info().Size); at < size {
			k := min(n, size-at)
			if err := m.backing.ReadVec(c.take(k), int64(at)); err != nil {
				return fmt.Errorf("backing file: %w", err)
			}
			n -= k
		}
	}
	c.zero(n)
	return nil
}

// inflate returns the cluster that a compressed entry refers to. Its offset
// and, behind it, the number of further sectors share the lower 62 bits.
func (m *Image) inflate(e uint64) ([]byte, error) {
	m.inflated.Lock()
	defer m.inflated.Unlock()
	if m.inflated.data != nil && m.inflated.entry == e {
		return m.inflated.data, nil
	}
	off, n := m.compressedRange(e)
	raw := make([]byte, n)
	if err := m.readAt(raw, off); err != nil {
		return nil, err
	}
	out := make([]byte, m.h.clusterSize())
	if err := m.decompress(out, raw); err != nil {
		return nil, fmt.Errorf("inflate the cluster at %#x: %w: %w", off, err, ErrCorrupt)
	}
	m.inflated.entry, m.inflated.data = e, out
	return out, nil
}

// decompress fills out. What follows the stream in the last sector is ignored.
func (m *Image) decompress(out, in []byte) error {
	if m.h.incompatible&incCompression == 0 {
		_, err := io.ReadFull(flate.NewReader(bytes.NewReader(in)), out)
		return err
	}
	z, err := zstd.NewReader(bytes.NewReader(in), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20))
	if err != nil {
		return err
	}
	defer z.Close()
	_, err = io.ReadFull(z, out)
	return err
}

func (m *Image) compressedRange(e uint64) (off, n uint64) {
	split := 62 - (m.h.clusterBits - 8)
	off = e & (1<<split - 1)
	sectors := e >> split & (1<<(62-split) - 1)
	return off, (sectors+1)*blk.SectorSize - off%blk.SectorSize
}
