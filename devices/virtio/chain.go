package virtio

import (
	"encoding/binary"
	"math"
	"sync/atomic"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// Descriptor flags (virtio 1.2 §2.7.5).
const (
	descNext     = 1
	descWrite    = 2
	descIndirect = 4
)

// Segment is one buffer of a chain, in guest physical addresses.
type Segment struct {
	Addr memory.Addr
	Len  uint32
}

// Chain is a descriptor chain that the device holds: its device-readable
// segments, then its device-writable ones, each wholly inside guest memory.
// The guest may change the bytes at any moment: read once, check the copy, use
// the copy. Segments without a byte are left out. Those that follow each other
// in guest memory, as the pages of a large buffer often do, are one piece of
// data: vectored I/O is cheaper the fewer pieces it has.
type Chain struct {
	head                     uint16
	inFlight                 atomic.Bool
	segs                     []Segment
	readable                 int // how many of segs
	data                     [][]byte
	readableData             int         // how many of data
	last                     memory.Addr // of the last of data
	readableLen, writableLen uint32
}

// Head is the index of the chain's first descriptor: what names it until Push.
func (c *Chain) Head() uint16 { return c.head }

// Readable returns the device-readable bytes in order, valid until Push.
func (c *Chain) Readable() [][]byte { return c.data[:c.readableData:c.readableData] }

// Writable returns the device-writable bytes in order, valid until Push.
func (c *Chain) Writable() [][]byte { return c.data[c.readableData:] }

// ReadableLen is the number of bytes in the readable segments.
func (c *Chain) ReadableLen() uint32 { return c.readableLen }

// WritableLen is the number of bytes in the writable segments.
func (c *Chain) WritableLen() uint32 { return c.writableLen }

// Segments returns the readable or the writable segments by guest address,
// valid until Push.
func (c *Chain) Segments(readable bool) []Segment {
	if readable {
		return c.segs[:c.readable:c.readable]
	}
	return c.segs[c.readable:]
}

// noteWritten tells those who track the VMM's writes of the first n writable
// bytes. They were told when the chain was popped, but what a tracker noted
// then may have been taken away before the bytes were written.
func (c *Chain) noteWritten(mem *memory.Guest, n uint32) {
	for _, s := range c.Segments(false) {
		if n == 0 {
			return
		}
		part := min(n, s.Len)
		_, _ = mem.WritableBytes(s.Addr, uint64(part))
		n -= part
	}
}

// descriptor is a copy of one (§2.7.5), so that it is read once.
type descriptor struct {
	addr  memory.Addr
	len   uint32
	flags uint16
	next  uint16
}

func readDescriptor(table []byte, i uint16) descriptor {
	var b [descSize]byte
	copy(b[:], table[int(i)*descSize:])
	return descriptor{
		addr:  memory.Addr(binary.LittleEndian.Uint64(b[0:])),
		len:   binary.LittleEndian.Uint32(b[8:]),
		flags: binary.LittleEndian.Uint16(b[12:]),
		next:  binary.LittleEndian.Uint16(b[14:]),
	}
}

// take walks the chain that begins at head. The number of descriptors is
// bounded by the queue's size, which also ends loops (§2.7.5.2: a driver must
// not make a chain longer than that).
func (q *Queue) take(head uint16) (*Chain, error) {
	if head >= q.cfg.Size {
		return nil, q.fault("2.7.6", "chain at descriptor %d of %d", head, q.cfg.Size)
	}
	c := q.chains[head]
	if c == nil {
		c = &Chain{head: head}
		q.chains[head] = c
	}
	if c.inFlight.Load() {
		return nil, q.fault("2.7.6", "descriptor %d made available twice", head)
	}
	c.segs, c.data = c.segs[:0], c.data[:0]
	c.readable, c.readableData, c.readableLen, c.writableLen = 0, 0, 0, 0
	if err := q.walk(c, head); err != nil {
		return nil, err
	}
	c.inFlight.Store(true)
	return c, nil
}

func (q *Queue) walk(c *Chain, i uint16) error {
	table, inTable := q.desc, false
	for n := 0; n < int(q.cfg.Size); n++ {
		if int(i) >= len(table)/descSize {
			return q.fault("2.7.5", "next descriptor %d is outside its table", i)
		}
		d := readDescriptor(table, i)
		if d.flags&descIndirect != 0 {
			if inTable {
				return q.fault("2.7.5.3.1", "indirect descriptor in an indirect table")
			}
			var err error
			if table, err = q.indirectTable(d); err != nil {
				return err
			}
			inTable, i = true, 0
			n-- // it is no element of the chain; there is only one
			continue
		}
		if err := q.addSegment(c, d); err != nil {
			return err
		}
		if d.flags&descNext == 0 {
			return nil
		}
		i = d.next
	}
	return q.fault("2.7.5.2", "chain at descriptor %d is longer than the queue, or loops", c.head)
}

// indirectTable returns the table that d refers to (§2.7.5.3). Its WRITE flag
// is ignored, as §2.7.5.3.2 wants.
func (q *Queue) indirectTable(d descriptor) ([]byte, error) {
	switch {
	case !q.indirect:
		return nil, q.fault("2.7.5.3.1", "indirect descriptor without the feature")
	case d.flags&descNext != 0:
		return nil, q.fault("2.7.5.3.1", "indirect descriptor that has a next one")
	case d.len == 0 || d.len%descSize != 0 || d.len/descSize > math.MaxUint16+1:
		return nil, q.fault("2.7.5.3", "indirect table of %d bytes", d.len)
	}
	table, err := q.mem.Bytes(d.addr, uint64(d.len))
	if err != nil {
		return nil, q.fault("2.7.5.3", "indirect table: %w", err)
	}
	return table, nil
}

func (q *Queue) addSegment(c *Chain, d descriptor) error {
	writable := d.flags&descWrite != 0
	if !writable && len(c.segs) > c.readable {
		return q.fault("2.7.4.2", "readable descriptor behind a writable one")
	}
	if d.len == 0 {
		return nil
	}
	if uint64(c.readableLen)+uint64(c.writableLen)+uint64(d.len) > math.MaxUint32 {
		return q.fault("2.7.5.2", "chain of more than 2^32 bytes")
	}
	var data []byte
	var err error
	if writable {
		data, err = q.mem.WritableBytes(d.addr, uint64(d.len))
	} else {
		data, err = q.mem.Bytes(d.addr, uint64(d.len))
	}
	if err != nil {
		return q.fault("2.7.5", "descriptor: %w", err)
	}
	first := 0 // piece that data can be a part of
	if writable {
		first = c.readableData
		c.writableLen += d.len
	} else {
		c.readableLen += d.len
		c.readable++
	}
	c.segs = append(c.segs, Segment{d.addr, d.len})
	if !q.join(c, first, d) {
		c.data = append(c.data, data)
		c.last = d.addr
	}
	if !writable {
		c.readableData = len(c.data)
	}
	return nil
}

// join makes d, which was checked, a part of the last piece of data if it
// follows it.
func (q *Queue) join(c *Chain, first int, d descriptor) bool {
	i := len(c.data) - 1
	if i < first || c.last+memory.Addr(len(c.data[i])) != d.addr {
		return false
	}
	whole, err := q.mem.Bytes(c.last, uint64(len(c.data[i]))+uint64(d.len))
	if err != nil { // they lie in two regions
		return false
	}
	c.data[i] = whole
	return true
}
