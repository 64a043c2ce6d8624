package qcow2

import (
	"fmt"
	"os"
)

// CreateOptions describe a new image.
type CreateOptions struct {
	Size          int64  // bytes of the disk
	ClusterBits   int    // log2 of the cluster size; default 16
	Backing       string // name of the backing file, as it stands in the image
	BackingFormat string // its format: "raw" or "qcow2"
}

// Create makes a new, empty version 3 image at path, which must not exist. Its
// clusters, in order: header, refcount table, first refcount block, L1 table.
func Create(path string, o CreateOptions) (err error) {
	h, err := newHeader(o)
	if err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	b, err := h.encode()
	if err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("create image: %w", err)
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	cs := int64(h.clusterSize())
	table := make([]byte, cs)
	be.PutUint64(table, uint64(2*cs))
	used := 3 + (int64(h.l1Size)*8+cs-1)/cs
	block := &refBlock{counts: make([]byte, cs)}
	for i := range uint64(used) {
		block.put(i, h.refOrder, 1)
	}
	for i, p := range [][]byte{b, table, block.counts} {
		if _, err := f.WriteAt(p, int64(i)*cs); err != nil {
			return fmt.Errorf("create image: %w", err)
		}
	}
	// The L1 table is all zero, which is what a longer file reads as.
	if err := f.Truncate(used * cs); err != nil {
		return fmt.Errorf("create image: %w", err)
	}
	return f.Sync()
}

func newHeader(o CreateOptions) (*header, error) {
	if o.ClusterBits == 0 {
		o.ClusterBits = defClusterBt
	}
	h := &header{version: 3, clusterBits: uint32(o.ClusterBits), size: uint64(o.Size), refOrder: 4, refClusters: 1,
		backing: o.Backing, backingFormat: o.BackingFormat}
	if o.ClusterBits < minCluster || o.ClusterBits > maxCluster || o.Size < 0 || o.Size > 1<<60 {
		return nil, fmt.Errorf("%d bytes in clusters of 2^%d", o.Size, o.ClusterBits)
	}
	if (o.Backing == "") != (o.BackingFormat == "") {
		return nil, fmt.Errorf("backing file %q of format %q: give both", o.Backing, o.BackingFormat)
	}
	h.l1Size = max(uint32(min(h.l1Needed(), maxL1/8+1)), 1)
	h.refOffset, h.l1Offset = h.clusterSize(), 3*h.clusterSize()
	if err := h.check(0); err != nil {
		return nil, err
	}
	if used := 3 + (uint64(h.l1Size)*8+h.clusterSize()-1)/h.clusterSize(); used > 1<<h.refBlockBits() {
		return nil, fmt.Errorf("%d bytes need larger clusters than 2^%d", o.Size, o.ClusterBits)
	}
	return h, nil
}
