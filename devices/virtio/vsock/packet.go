package vsock

import (
	"encoding/binary"
	"fmt"
)

// HostCID is the context ID of the host (virtio 1.2 §5.10.4).
const HostCID = 2

// headerLen is the size of struct virtio_vsock_hdr (virtio 1.2 §5.10.6).
const headerLen = 44

// op is what a packet does (virtio 1.2 §5.10.6).
type op uint16

const (
	opInvalid       op = 0
	opRequest       op = 1
	opResponse      op = 2
	opRST           op = 3
	opShutdown      op = 4
	opRW            op = 5
	opCreditUpdate  op = 6
	opCreditRequest op = 7
)

func (o op) String() string {
	names := [...]string{"INVALID", "REQUEST", "RESPONSE", "RST", "SHUTDOWN", "RW", "CREDIT_UPDATE", "CREDIT_REQUEST"}
	if int(o) < len(names) {
		return names[o]
	}
	return fmt.Sprintf("op %d", uint16(o))
}

// typeStream is the only socket type that the device offers (virtio 1.2
// §5.10.6.2).
const typeStream = 1

// Flags of SHUTDOWN (virtio 1.2 §5.10.6.5): what the sender will do no more.
const (
	shutReceive = 1 << 0
	shutSend    = 1 << 1
	shutBoth    = shutReceive | shutSend
)

// header is struct virtio_vsock_hdr; all fields are little-endian:
//
//	 0       8       16      20      24    28   30  32     36          40      44
//	| srcCID | dstCID |srcPort|dstPort| len |type| op |flags| buf_alloc |fwd_cnt|
type header struct {
	srcCID, dstCID   uint64
	srcPort, dstPort uint32
	len              uint32 // payload bytes after the header
	typ              uint16
	op               op
	flags            uint32
	bufAlloc         uint32 // the sender's whole receive buffer for this socket
	fwdCnt           uint32 // bytes that left it since the start, modulo 2^32
}

func (h *header) decode(b *[headerLen]byte) {
	le := binary.LittleEndian
	h.srcCID, h.dstCID = le.Uint64(b[0:]), le.Uint64(b[8:])
	h.srcPort, h.dstPort = le.Uint32(b[16:]), le.Uint32(b[20:])
	h.len = le.Uint32(b[24:])
	h.typ, h.op = le.Uint16(b[28:]), op(le.Uint16(b[30:]))
	h.flags, h.bufAlloc, h.fwdCnt = le.Uint32(b[32:]), le.Uint32(b[36:]), le.Uint32(b[40:])
}

func (h *header) encode(b *[headerLen]byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], h.srcCID)
	le.PutUint64(b[8:], h.dstCID)
	le.PutUint32(b[16:], h.srcPort)
	le.PutUint32(b[20:], h.dstPort)
	le.PutUint32(b[24:], h.len)
	le.PutUint16(b[28:], h.typ)
	le.PutUint16(b[30:], uint16(h.op))
	le.PutUint32(b[32:], h.flags)
	le.PutUint32(b[36:], h.bufAlloc)
	le.PutUint32(b[40:], h.fwdCnt)
}
