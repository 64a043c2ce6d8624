package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/control"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// processTime is the processor time that this process has used.
func processTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// memoryStats reads what the host says of this process's memory: guest memory
// and the rest apart.
func memoryStats(g *memory.Guest) (control.MemoryStats, error) {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return control.MemoryStats{}, err
	}
	defer f.Close()
	s, err := sumMappings(f, func(from, to uint64) bool {
		for _, r := range g.Regions() {
			start := uint64(memory.HostAddr(r.Bytes))
			// The kernel joins mappings that lie side by side.
			if from < start+uint64(len(r.Bytes)) && start < to {
				return true
			}
		}
		return false
	})
	s.Guest = g.Size()
	return s, err
}

// sumMappings adds up the figures of /proc/PID/smaps (Linux
// Documentation/filesystems/proc.rst).
func sumMappings(r io.Reader, isGuest func(from, to uint64) bool) (s control.MemoryStats, err error) {
	lines := bufio.NewScanner(r)
	guest := false
	for lines.Scan() {
		line := lines.Text()
		key, rest, ok := strings.Cut(line, ":")
		if !ok || strings.Contains(key, " ") { // the head of a mapping
			if guest, err = isGuestMapping(line, isGuest); err != nil {
				return s, err
			}
			continue
		}
		n := kilobytes(rest)
		switch key {
		case "Rss":
			s.Resident += n
		case "Pss":
			s.PSS += n
			if guest {
				s.GuestPSS += n
			} else {
				s.Own += n
			}
		case "Shared_Clean", "Shared_Dirty":
			s.Shared += n
		}
	}
	return s, lines.Err()
}

func isGuestMapping(head string, isGuest func(from, to uint64) bool) (bool, error) {
	span, _, _ := strings.Cut(head, " ")
	a, b, _ := strings.Cut(span, "-")
	from, err1 := strconv.ParseUint(a, 16, 64)
	to, err2 := strconv.ParseUint(b, 16, 64)
	if err1 != nil || err2 != nil {
		return false, fmt.Errorf("/proc/self/smaps: cannot read %q", head)
	}
	return isGuest(from, to), nil
}

// kilobytes reads "      12 kB"; 0 for what is none.
func kilobytes(s string) uint64 {
	n, _ := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(s, "kB")), 10, 64)
	return n << 10
}
