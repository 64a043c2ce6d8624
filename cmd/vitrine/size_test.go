package main

import (
	"math"
	"testing"
)

func TestParseSize(t *testing.T) {
	for s, want := range map[string]uint64{
		"0": 0, "1": 1, "1k": 1 << 10, "512M": 512 << 20, "2G": 2 << 30, "2GiB": 2 << 30, "2gb": 2 << 30,
		" 3T ": 3 << 40, "18446744073709551615": math.MaxUint64, "16777215T": 16777215 << 40,
	} {
		if got, err := parseSize(s); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "M", "-1", "1.5G", "1X", "1GG", "0x10", "18446744073709551616", "16777216T", "1 G", "B", "i"} {
		if got, err := parseSize(s); err == nil {
			t.Errorf("%q: %d, want an error", s, got)
		}
	}
}

func TestParseMemory(t *testing.T) {
	for s, want := range map[string]uint64{"512": 512 << 20, "512M": 512 << 20, "6G": 6 << 30, "8192K": 8 << 20} {
		if got, err := parseMemory(s); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "0", "0G", "5K", "1025B", "99999999999999"} {
		if got, err := parseMemory(s); err == nil {
			t.Errorf("%q: %d, want an error", s, got)
		}
	}
}

func TestFormatSize(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 256 << 20: "256 MiB", 1 << 50: "1024 TiB"} {
		if got := formatSize(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func FuzzSize(f *testing.F) {
	for _, s := range []string{"512M", "1TiB", "0", "-1", "18446744073709551615", "kib"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		_, _ = parseSize(s)
		if v, err := parseMemory(s); err == nil && (v == 0 || v%4096 != 0) {
			t.Errorf("memory %q: %d", s, v)
		}
	})
}
