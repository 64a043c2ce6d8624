package memory

import (
	"bufio"
	"encoding/binary"
	"os"
	"strconv"
	"strings"
)

// Bits of an entry of /proc/PID/pagemap (Linux
// Documentation/admin-guide/mm/pagemap.rst).
const (
	pagemapFile    = 1 << 61 // the page is a file's, or shared
	pagemapSwapped = 1 << 62
	pagemapPresent = 1 << 63
)

// holdings fills in h for the pages of b, and says whether it could.
func holdings(b []byte, h []Holding) bool {
	start := uint64(HostAddr(b))
	if !fileMappings(start, h) {
		return false
	}
	return pagemap(start, len(h), func(i int, e uint64) {
		if e&pagemapSwapped != 0 || e&(pagemapPresent|pagemapFile) == pagemapPresent {
			h[i] = HoldsOwn
		}
	})
}

// present fills in p for the pages of b, and says whether it could.
func present(b []byte, p []bool) bool {
	return pagemap(uint64(HostAddr(b)), len(p), func(i int, e uint64) { p[i] = e&(pagemapPresent|pagemapSwapped) != 0 })
}

// pagemap visits the entries of this process's pagemap for n pages from the
// host address start, and says whether it could.
func pagemap(start uint64, n int, visit func(i int, entry uint64)) bool {
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return false
	}
	defer f.Close()
	const batch = 8192
	buf := make([]byte, 8*batch)
	for i := 0; i < n; i += batch {
		k := min(batch, n-i)
		if _, err := f.ReadAt(buf[:8*k], int64(8*(start/PageSize+uint64(i)))); err != nil {
			return false
		}
		for j := range k {
			visit(i+j, binary.NativeEndian.Uint64(buf[8*j:]))
		}
	}
	return true
}

// fileMappings notes in h, whose first page lies at start, the pages that a
// file is mapped to.
func fileMappings(start uint64, h []Holding) bool {
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return false
	}
	defer f.Close()
	end := start + uint64(len(h))*PageSize
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		from, to, file, ok := parseMapping(lines.Text())
		if !ok {
			return false
		}
		if !file {
			continue
		}
		for a := max(from, start); a < min(to, end); a += PageSize {
			h[(a-start)/PageSize] = HoldsFile
		}
	}
	return lines.Err() == nil
}

// parseMapping reads a line of /proc/PID/maps: from-to rights offset device
// inode path (proc_pid_maps(5)).
func parseMapping(line string) (from, to uint64, file, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 5 {
		return 0, 0, false, false
	}
	a, b, _ := strings.Cut(fields[0], "-")
	from, err1 := strconv.ParseUint(a, 16, 64)
	to, err2 := strconv.ParseUint(b, 16, 64)
	return from, to, fields[4] != "0", err1 == nil && err2 == nil
}
