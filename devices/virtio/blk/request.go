package blk

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
)

// Request types (virtio 1.2 §5.2.6).
const (
	typeIn          = 0
	typeOut         = 1
	typeFlush       = 4
	typeGetID       = 8
	typeDiscard     = 11
	typeWriteZeroes = 13
)

// Status values (§5.2.6).
const (
	statusOK      = 0
	statusIOErr   = 1
	statusUnsupp  = 2
	statusPending = 0xff // our own: the back end will tell
)

const (
	headerLen = 16
	rangeLen  = 16 // struct virtio_blk_discard_write_zeroes
	flagUnmap = 1
)

// errNoHeader and errNoStatus are protocol errors: there is no place to say
// that the request failed.
var (
	errNoHeader = errors.New("request without a whole header")
	errNoStatus = errors.New("request without a status byte")
)

// job is a request from its Pop to its Push. There is one for each descriptor
// that a chain can begin at, used again and again.
type job struct {
	req    Request
	chain  *virtio.Chain
	status []byte   // one byte of guest memory
	data   [][]byte // the writable bytes before the status
	vec    [][]byte // a write's data
	filled bool     // something else than finish has filled data
}

// parse takes c apart into j. The status is statusPending if the back end is
// to be asked, else the answer. The header is read once. An error means that
// the request cannot even be answered.
func (d *Device) parse(j *job, c *virtio.Chain) (status byte, err error) {
	j.chain, j.filled = c, false
	if c.WritableLen() == 0 {
		return 0, d.protocol(errNoStatus)
	}
	// The status is the last writable byte, in whatever buffer (§2.7.4.1:
	// the layout of buffers has no meaning).
	w := c.Writable()
	last := w[len(w)-1]
	j.status = last[len(last)-1:]
	n := uint64(c.WritableLen()) - 1
	j.data = appendHead(j.data[:0], w, n)

	var h [headerLen]byte
	cur := virtio.NewReader(c.Readable())
	cur.ReadFull(h[:])
	if cur.Err() != nil {
		return 0, d.protocol(errNoHeader)
	}
	kind := binary.LittleEndian.Uint32(h[0:])
	sector := binary.LittleEndian.Uint64(h[8:])
	j.req = Request{owner: j}
	switch kind {
	case typeIn:
		j.filled = true
		return d.transfer(j, OpRead, j.data, sector, n), nil
	case typeOut:
		j.vec = appendTail(j.vec[:0], c.Readable(), headerLen)
		j.req.Durable = !d.writeback.Load()
		return d.transfer(j, OpWrite, j.vec, sector, uint64(c.ReadableLen())-headerLen), nil
	case typeFlush:
		j.req.Op = OpFlush
		return statusPending, nil
	case typeGetID:
		d.getID(j)
		return statusOK, nil
	case typeDiscard, typeWriteZeroes:
		return d.parseRange(j, kind, cur), nil
	}
	return statusUnsupp, nil
}

func (d *Device) protocol(err error) error {
	return fmt.Errorf("%s: %w (virtio 1.2 §5.2.6)", d.opts.Name, err)
}

// transfer completes a read or write of n bytes.
func (d *Device) transfer(j *job, op Op, vec [][]byte, sector, n uint64) byte {
	offset, ok := d.within(sector, n)
	if !ok || n > maxRequest || op == OpWrite && d.info.ReadOnly {
		return statusIOErr
	}
	if n == 0 {
		return statusOK
	}
	j.req.Op, j.req.Offset, j.req.Length, j.req.Vec = op, offset, int64(n), vec
	return statusPending
}

// within says where on the disk n bytes at sector are, if they are. The sum is
// never formed in the 64 bits that the guest could make wrap.
func (d *Device) within(sector, n uint64) (offset int64, ok bool) {
	sectors := uint64(d.info.Size) / SectorSize
	if n%SectorSize != 0 || sector > sectors || n/SectorSize > sectors-sector {
		return 0, false
	}
	return int64(sector * SectorSize), true
}

// parseRange reads the one range of a DISCARD or WRITE_ZEROES request:
//
//	| sector le64 | num_sectors le32 | flags le32 |
//
// The configuration space announces that there is one (max_discard_seg).
func (d *Device) parseRange(j *job, kind uint32, cur virtio.Cursor) byte {
	if kind == typeDiscard && !d.info.Discard || kind == typeWriteZeroes && !d.info.WriteZeroes {
		return statusUnsupp
	}
	if cur.Len() != rangeLen || d.info.ReadOnly {
		return statusIOErr
	}
	var b [rangeLen]byte
	cur.ReadFull(b[:])
	flags := binary.LittleEndian.Uint32(b[12:])
	// §5.2.6.2: unknown flags, and unmap in a discard, are not supported.
	if flags&^flagUnmap != 0 || kind == typeDiscard && flags != 0 {
		return statusUnsupp
	}
	sectors := binary.LittleEndian.Uint32(b[8:])
	if sectors > maxSectors {
		return statusIOErr
	}
	n := uint64(sectors) * SectorSize
	offset, ok := d.within(binary.LittleEndian.Uint64(b[0:]), n)
	if !ok {
		return statusIOErr
	}
	if n == 0 {
		return statusOK
	}
	j.req.Op = OpDiscard
	if kind == typeWriteZeroes {
		j.req.Op, j.req.Unmap, j.req.Durable = OpWriteZeroes, flags&flagUnmap != 0, !d.writeback.Load()
	}
	j.req.Offset, j.req.Length = offset, int64(n)
	return statusPending
}

// getID writes the serial number, filled up with zeros (§5.2.6).
func (d *Device) getID(j *job) {
	id := d.info.ID
	j.filled = true
	for _, b := range j.data {
		clear(b)
		id = id[copy(b, id[:min(len(id), idLength)]):]
	}
}

// appendHead appends the first n bytes of segs to vec.
func appendHead(vec, segs [][]byte, n uint64) [][]byte {
	for _, s := range segs {
		if n == 0 {
			break
		}
		s = s[:min(uint64(len(s)), n):min(uint64(len(s)), n)]
		vec = append(vec, s)
		n -= uint64(len(s))
	}
	return vec
}

// appendTail appends all but the first n bytes of segs to vec.
func appendTail(vec, segs [][]byte, n int) [][]byte {
	for _, s := range segs {
		if n >= len(s) {
			n -= len(s)
			continue
		}
		vec = append(vec, s[n:])
		n = 0
	}
	return vec
}

// finish writes what the driver learns of j, and returns how many bytes of the
// chain were written. It is all of them: the status is the last, and a driver
// may not trust what lies behind the count (§2.7.8.1). So what a failed read,
// or a request that reads nothing, left unwritten is zeroed first.
func (j *job) finish(status byte) (written uint32) {
	j.status[0] = status
	if j.chain.WritableLen() > maxRequest+1 {
		return 0 // refused: not worth zeroing so much
	}
	if status != statusOK || !j.filled {
		for _, b := range j.data {
			clear(b)
		}
	}
	return j.chain.WritableLen()
}
