package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// parseSize reads a number of bytes: digits and an optional suffix K, M, G or
// T (powers of 1024), with or without a B or iB after it. A bare number below
// 1 MiB is refused when it can only be a mistake: see parseMemory.
func parseSize(s string) (uint64, error) {
	t := strings.ToUpper(strings.TrimSpace(s))
	t = strings.TrimSuffix(strings.TrimSuffix(t, "B"), "I")
	shift := 0
	if n := len(t); n > 0 {
		if i := strings.IndexByte("KMGT", t[n-1]); i >= 0 {
			shift, t = 10*(i+1), t[:n-1]
		}
	}
	v, err := strconv.ParseUint(t, 10, 64)
	if err != nil || v > math.MaxUint64>>shift {
		return 0, fmt.Errorf("size %q: want a number with K, M, G or T, such as 512M or 2G", s)
	}
	return v << shift, nil
}

// parseMemory reads the size of a guest's memory, a multiple of 4 KiB. A bare
// number is MiB, as in QEMU: nobody wants a guest of 512 bytes.
func parseMemory(s string) (uint64, error) {
	v, err := parseSize(s)
	if err != nil {
		return 0, fmt.Errorf("memory %w", err)
	}
	if _, err := strconv.ParseUint(strings.TrimSpace(s), 10, 44); err == nil {
		v <<= 20
	}
	if v%4096 != 0 || v == 0 {
		return 0, fmt.Errorf("memory size %q: want a multiple of 4K above 0", s)
	}
	return v, nil
}

// formatSize writes a number of bytes for people.
func formatSize(n uint64) string {
	const units = "KMGT"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/1024, 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0") + " " + units[i:i+1] + "iB"
}
