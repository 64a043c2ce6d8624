package blk

import (
	"encoding/binary"
	"fmt"
)

var typeNames = map[uint32]string{typeIn: "READ", typeOut: "WRITE", typeFlush: "FLUSH", typeGetID: "GET_ID",
	typeDiscard: "DISCARD", typeWriteZeroes: "WRITE_ZEROES"}

// Describe says what a request asks for, for traces. header is the first bytes
// of the chain's readable part; readable and writable are the lengths of both.
func Describe(header []byte, readable, writable uint32) string {
	if len(header) < headerLen || readable < headerLen {
		return "a request without a whole header"
	}
	kind, sector := binary.LittleEndian.Uint32(header), binary.LittleEndian.Uint64(header[8:])
	name, ok := typeNames[kind]
	switch {
	case !ok:
		return fmt.Sprintf("unknown request %d", kind)
	case kind == typeIn:
		return fmt.Sprintf("READ sector %d %s", sector, size(max(writable, 1)-1))
	case kind == typeOut:
		return fmt.Sprintf("WRITE sector %d %s", sector, size(readable-headerLen))
	case (kind == typeDiscard || kind == typeWriteZeroes) && len(header) >= headerLen+12:
		r := header[headerLen:]
		return fmt.Sprintf("%s sector %d, %d sectors", name, binary.LittleEndian.Uint64(r), binary.LittleEndian.Uint32(r[8:]))
	}
	return name
}

// StatusName names a request's status byte (virtio 1.2 §5.2.6).
func StatusName(status byte) string {
	switch status {
	case statusOK:
		return "OK"
	case statusIOErr:
		return "IOERR"
	case statusUnsupp:
		return "UNSUPP"
	}
	return fmt.Sprintf("status %d", status)
}

func size(n uint32) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}
