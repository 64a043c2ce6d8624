package net

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
)

const (
	macLen = 6

	// maxTable is how many addresses of each kind a filter holds; a driver
	// that wants more gets all frames of that kind.
	maxTable = 64
)

type macAddr [macLen]byte

// filter says which frames the driver wants (virtio 1.2 §5.1.6.5.1, §5.1.6.5.2).
// It does not change: a command makes a new one. It is also the form in which a
// snapshot keeps it.
type filter struct {
	MAC          macAddr
	Promiscuous  bool
	AllUnicast   bool // the table has overflowed
	AllMulticast bool
	ManyMulti    bool // the table has overflowed
	Unicast      []macAddr
	Multicast    []macAddr
}

// resetFilter lets everything through, as until a driver says otherwise.
func (d *Device) resetFilter() {
	f := &filter{Promiscuous: true}
	copy(f.MAC[:], d.cfg.MAC)
	d.filter.Store(f)
}

// passes says whether the driver wants the frame, which is behind a Header.
func (f *filter) passes(frame [][]byte) bool {
	if f.Promiscuous {
		return true
	}
	var b [HeaderLen + macLen]byte
	gather(b[:], frame)
	dst := macAddr(b[HeaderLen:])
	if dst[0]&1 == 0 {
		return dst == f.MAC || f.AllUnicast || slices.Contains(f.Unicast, dst)
	}
	return f.AllMulticast || f.ManyMulti || dst == macAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff} || slices.Contains(f.Multicast, dst)
}

// setTables takes the data of VIRTIO_NET_CTRL_MAC_TABLE_SET: unicast, then
// multicast addresses. It reports whether they were well formed.
func (f *filter) setTables(r *virtio.Cursor) bool {
	f.Unicast, f.AllUnicast = readTable(r)
	f.Multicast, f.ManyMulti = readTable(r)
	return r.Err() == nil
}

// readTable reads a number of entries, 32 bits, and as many addresses.
func readTable(r *virtio.Cursor) (table []macAddr, overflow bool) {
	n := uint64(r.Uint32())
	if overflow = n > maxTable; overflow {
		r.Skip(macLen * n)
		return nil, true
	}
	for range n {
		var a macAddr
		r.ReadFull(a[:])
		table = append(table, a)
	}
	return table, false
}

// check says whether a filter from a snapshot is one that a driver can make.
func (f *filter) check() error {
	switch {
	case len(f.Unicast) > maxTable || len(f.Multicast) > maxTable:
		return fmt.Errorf("receive filter of %d and %d addresses: want at most %d", len(f.Unicast), len(f.Multicast), maxTable)
	case f.MAC[0]&1 != 0 || bytes.Equal(f.MAC[:], make([]byte, macLen)):
		return fmt.Errorf("MAC address %x", f.MAC)
	}
	return nil
}
