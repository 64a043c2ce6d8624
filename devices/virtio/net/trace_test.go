package net

import "testing"

func TestHeadersDecode(t *testing.T) {
	for _, c := range []struct {
		h    Header
		want string
	}{{Header{}, ""}, {Header{GSOType: GSOTCPv4, GSOSize: 1448, Flags: HeaderNeedsCsum}, "TSO4 by 1448 B, checksum to be completed"},
		{Header{GSOType: GSOTCPv6 | GSOECN, GSOSize: 9}, "TSO6 by 9 B"}, {Header{GSOType: 77}, "segmentation 77 by 0 B"}} {
		b := make([]byte, HeaderLen)
		c.h.Encode(b)
		if got := Describe(b); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	if got := Describe(nil); got != "a frame without a whole header" {
		t.Errorf("short: %q", got)
	}
	for want, b := range map[string][]byte{"RX promiscuous on": {0, 0, 1}, "MAC address set 02 00 00 00 00 01": {1, 1, 2, 0, 0, 0, 0, 1},
		"queue pairs 2": {4, 0, 2, 0}, "class 9 command 9": {9, 9}, "a command without a whole header": {1}} {
		if got := DescribeControl(b); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
