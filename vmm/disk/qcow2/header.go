// Package qcow2 reads and writes disk images in QEMU's qcow2 format, versions
// 2 and 3 (docs/interop/qcow2.rst of QEMU): images that grow, and overlays
// over a backing file.
//
// What it does not do it refuses when the image is opened: encryption, external
// data files, extended L2 entries, and writing to an image that has
// internal snapshots or that was not closed well.
//
// An image survives a crash of this program or of the host. Metadata is kept
// in memory and written by Flush in an order in which every prefix is a good
// image: refcounts before the tables that refer to what they count, tables
// before the pointers to them, and a cluster is free only when nothing on the
// medium refers to it any more. What a crash can leave is a cluster that is
// counted and not used.
package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

var be = binary.BigEndian

const (
	magic        = 0x514649fb // "QFI\xfb"
	headerLenV2  = 72
	headerLenV3  = 104
	maxHeader    = 4096     // of extensions and backing file name we look at
	maxL1        = 32 << 20 // bytes of the L1 table: QEMU's own limit
	maxRefTable  = 8 << 20  // bytes of the refcount table: QEMU's own limit
	maxBackName  = 1023
	extBacking   = 0xe2792aca
	minCluster   = 9
	maxCluster   = 21
	defClusterBt = 16

	compressionZstd = 1 // the byte behind the header of version 3

	// Incompatible features (header bytes 72-79).
	incDirty, incCorrupt, incData, incCompression, incExtendedL2 = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 4
)

// header is the fixed part of the header, and the extensions that matter.
//
//	 0 magic            4 version        8 backing file offset (8) and, at 16, length
//	20 cluster bits    24 size (8)      32 encryption
//	36 L1 entries      40 L1 offset (8) 48 refcount table offset (8) and, at 56, clusters
//	60 snapshots       64 their offset  72 incompatible, 80 compatible, 88 autoclear (8 each)
//	96 refcount order 100 header length
type header struct {
	version       uint32
	clusterBits   uint32
	size          uint64
	l1Size        uint32
	l1Offset      uint64
	refOffset     uint64
	refClusters   uint32
	snapshots     uint32
	incompatible  uint64
	autoclear     uint64
	refOrder      uint32
	backing       string
	backingFormat string
}

// parseHeader reads the header from the first bytes of an image, up to
// maxHeader of them.
func parseHeader(b []byte) (*header, error) {
	if len(b) < headerLenV2 || be.Uint32(b) != magic {
		return nil, errors.New("not a qcow2 image")
	}
	h := &header{
		version: be.Uint32(b[4:]), clusterBits: be.Uint32(b[20:]), size: be.Uint64(b[24:]),
		l1Size: be.Uint32(b[36:]), l1Offset: be.Uint64(b[40:]),
		refOffset: be.Uint64(b[48:]), refClusters: be.Uint32(b[56:]), snapshots: be.Uint32(b[60:]),
		refOrder: 4,
	}
	length := uint32(headerLenV2)
	switch {
	case h.version == 3:
		if len(b) < headerLenV3 {
			return nil, errors.New("its header is cut off")
		}
		h.incompatible, h.autoclear = be.Uint64(b[72:]), be.Uint64(b[88:])
		h.refOrder, length = be.Uint32(b[96:]), be.Uint32(b[100:])
		if h.incompatible&incCompression != 0 && (length <= headerLenV3 || len(b) <= headerLenV3 || b[headerLenV3] != compressionZstd) {
			return nil, errors.New("it is compressed in an unknown way: convert it with qemu-img first")
		}
	case h.version != 2:
		return nil, fmt.Errorf("qcow2 version %d: versions 2 and 3 are known", h.version)
	}
	if err := h.check(be.Uint32(b[32:])); err != nil {
		return nil, err
	}
	if err := h.parseExtensions(b, length); err != nil {
		return nil, err
	}
	return h, h.parseBacking(b)
}

// check refuses what cannot be right, and what is not supported.
func (h *header) check(crypt uint32) error {
	unknown := h.incompatible &^ (incDirty | incCorrupt | incCompression)
	switch {
	case h.clusterBits < minCluster || h.clusterBits > maxCluster:
		return fmt.Errorf("clusters of 2^%d bytes: 2^%d to 2^%d are possible", h.clusterBits, minCluster, maxCluster)
	case crypt != 0:
		return errors.New("it is encrypted: convert it with qemu-img first")
	case unknown&incData != 0:
		return errors.New("it has an external data file: convert it with qemu-img first")
	case unknown != 0:
		return fmt.Errorf("incompatible features %#x: convert it with qemu-img first", unknown)
	case h.refOrder > 6:
		return fmt.Errorf("refcount order %d", h.refOrder)
	case h.size > 1<<60:
		return fmt.Errorf("a disk of %d bytes", h.size)
	case uint64(h.l1Size)*8 > maxL1 || uint64(h.l1Size) < h.l1Needed():
		return fmt.Errorf("an L1 table of %d entries for %d bytes", h.l1Size, h.size)
	case uint64(h.refClusters)<<h.clusterBits > maxRefTable || h.refClusters == 0:
		return fmt.Errorf("a refcount table of %d clusters", h.refClusters)
	case !h.aligned(h.l1Offset) || !h.aligned(h.refOffset) || h.refOffset == 0 || h.l1Size > 0 && h.l1Offset == 0:
		return fmt.Errorf("tables at %#x and %#x", h.l1Offset, h.refOffset)
	}
	return nil
}

func (h *header) clusterSize() uint64 { return 1 << h.clusterBits }

// aligned says whether off is the start of a cluster that a file can have.
func (h *header) aligned(off uint64) bool {
	return off&(h.clusterSize()-1) == 0 && off < 1<<56
}

// l2Bits is log2 of the entries in an L2 table, which fills a cluster.
func (h *header) l2Bits() uint32 { return h.clusterBits - 3 }

// l1Needed is the number of L1 entries that cover the disk.
func (h *header) l1Needed() uint64 {
	span := h.clusterBits + h.l2Bits()
	return (h.size + 1<<span - 1) >> span
}

// parseExtensions walks the header extensions: type, length, data filled up to
// a multiple of 8. Unknown ones are skipped, as the format wants.
func (h *header) parseExtensions(b []byte, at uint32) error {
	if h.version == 3 && (at < headerLenV3 || at%8 != 0) {
		return fmt.Errorf("a header of %d bytes", at)
	}
	for uint64(at)+8 <= uint64(len(b)) {
		kind, n := be.Uint32(b[at:]), be.Uint32(b[at+4:])
		at += 8
		if kind == 0 {
			return nil
		}
		if uint64(n) > uint64(len(b))-uint64(at) {
			return errors.New("a header extension is cut off")
		}
		if kind == extBacking {
			h.backingFormat = string(b[at : at+n])
		}
		at += (n + 7) &^ 7
	}
	return nil
}

func (h *header) parseBacking(b []byte) error {
	off, n := be.Uint64(b[8:]), be.Uint32(b[16:])
	if off == 0 {
		return nil
	}
	if n == 0 || n > maxBackName || off > uint64(len(b)) || uint64(n) > uint64(len(b))-off {
		return errors.New("the name of its backing file is cut off")
	}
	h.backing = string(b[off : off+uint64(n)])
	if strings.ContainsRune(h.backing, 0) {
		return errors.New("the name of its backing file has a zero in it")
	}
	return nil
}

// encode is the header cluster of a new version 3 image.
func (h *header) encode() ([]byte, error) {
	b := make([]byte, h.clusterSize())
	be.PutUint32(b[0:], magic)
	be.PutUint32(b[4:], 3)
	be.PutUint32(b[20:], h.clusterBits)
	be.PutUint64(b[24:], h.size)
	be.PutUint32(b[36:], h.l1Size)
	be.PutUint64(b[40:], h.l1Offset)
	be.PutUint64(b[48:], h.refOffset)
	be.PutUint32(b[56:], h.refClusters)
	be.PutUint32(b[96:], h.refOrder)
	be.PutUint32(b[100:], headerLenV3)
	if h.backing == "" {
		return b, nil
	}
	at := uint64(headerLenV3)
	be.PutUint32(b[at:], extBacking)
	be.PutUint32(b[at+4:], uint32(len(h.backingFormat)))
	copy(b[at+8:], h.backingFormat)
	at += 8 + (uint64(len(h.backingFormat))+7)&^7 + 8 // and the end of the extensions
	if len(h.backing) > maxBackName || at+uint64(len(h.backing)) > uint64(len(b)) {
		return nil, fmt.Errorf("the name of the backing file is longer than %d bytes", min(maxBackName, len(b)-int(at)))
	}
	copy(b[at:], h.backing)
	be.PutUint64(b[8:], at)
	be.PutUint32(b[16:], uint32(len(h.backing)))
	return b, nil
}

// log2 of the number of refcounts in a block, which fills a cluster.
func (h *header) refBlockBits() uint32 { return h.clusterBits + 3 - h.refOrder }
