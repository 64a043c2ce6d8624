package vsock

import "testing"

func TestPacketsDecode(t *testing.T) {
	for _, c := range []struct {
		h    header
		want string
	}{
		{header{srcCID: 3, dstCID: 2, srcPort: 1024, dstPort: 1, op: opRW, len: 17}, "RW 3:1024 → 2:1, 17 B"},
		{header{srcCID: 2, dstCID: 3, srcPort: 1, dstPort: 9, op: opShutdown, flags: 3}, "SHUTDOWN 2:1 → 3:9, both ways"},
		{header{srcCID: 2, dstCID: 3, srcPort: 1, dstPort: 9, op: opRequest, bufAlloc: 4096}, "REQUEST 2:1 → 3:9, buffer 4096, taken 0"},
		{header{op: 99}, "op 99 0:0 → 0:0"},
	} {
		var b [headerLen]byte
		c.h.encode(&b)
		if got := Describe(b[:]); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	if got := Describe(make([]byte, headerLen-1)); got != "a packet without a whole header" {
		t.Errorf("short: %q", got)
	}
}
