package main

import (
	"strings"
	"testing"
)

func TestSumOfMappings(t *testing.T) {
	const text = "7f0000000000-7f0000100000 rw-p 00000000 00:00 0\nRss:  100 kB\nPss:  50 kB\nShared_Clean:  4 kB\nVmFlags: rd wr\n" +
		"7f0000200000-7f0000300000 r-xp 00000000 08:01 5   /x: y\nRss:  10 kB\nPss:  5 kB\n"
	s, err := sumMappings(strings.NewReader(text), func(from, to uint64) bool { return from == 0x7f0000000000 && to == 0x7f0000100000 })
	if err != nil || s.Resident != 110<<10 || s.PSS != 55<<10 || s.GuestPSS != 50<<10 || s.Own != 5<<10 || s.Shared != 4<<10 {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := sumMappings(strings.NewReader("nonsense"), func(uint64, uint64) bool { return false }); err == nil {
		t.Error("nonsense was read")
	}
}
