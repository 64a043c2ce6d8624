package blk

import (
	"encoding/binary"
	"testing"
)

func TestRequestsDecode(t *testing.T) {
	request := func(kind uint32, sector uint64, more ...byte) []byte {
		b := make([]byte, headerLen)
		binary.LittleEndian.PutUint32(b, kind)
		binary.LittleEndian.PutUint64(b[8:], sector)
		return append(b, more...)
	}
	area := make([]byte, 16)
	area[0], area[8] = 9, 4
	for _, c := range []struct {
		header             []byte
		readable, writable uint32
		want               string
	}{
		{request(typeIn, 2048), 16, 8193, "READ sector 2048 8 KiB"}, {request(typeOut, 7), 16 + 512, 1, "WRITE sector 7 512 B"},
		{request(typeFlush, 0), 16, 1, "FLUSH"}, {request(typeGetID, 0), 16, 21, "GET_ID"}, {request(99, 0), 16, 1, "unknown request 99"},
		{request(typeDiscard, 0, area...), 32, 1, "DISCARD sector 9, 4 sectors"}, {request(typeDiscard, 0), 16, 1, "DISCARD"},
		{nil, 0, 1, "a request without a whole header"}, {request(typeIn, 0), 16, 0, "READ sector 0 0 B"}, {request(typeIn, 1), 16, 2<<20 + 1, "READ sector 1 2 MiB"},
	} {
		if got := Describe(c.header, c.readable, c.writable); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	if StatusName(statusIOErr) != "IOERR" || StatusName(9) != "status 9" {
		t.Error("names of statuses")
	}
}
