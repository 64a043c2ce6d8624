package compare

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// stat is what is needed of /proc/PID/stat (proc_pid_stat(5)).
type stat struct {
	pid, parent int
	state       byte
	busy        time.Duration // user and system time, guest time included
	guest       time.Duration
}

// tick is the unit of times in /proc: USER_HZ is 100 on every Linux we run on.
const tick = 10 * time.Millisecond

func readStat(pid int) (stat, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	// The name may have spaces and parentheses: the last one ends it.
	end := bytes.LastIndexByte(b, ')')
	if err != nil || end < 0 {
		return stat{}, false
	}
	f := strings.Fields(string(b[end+1:])) // f[0] is field 3
	if len(f) < 41 {
		return stat{}, false
	}
	number := func(field int) int64 {
		n, _ := strconv.ParseInt(f[field-3], 10, 64)
		return n
	}
	return stat{pid: pid, parent: int(number(4)), state: f[0][0],
		busy: time.Duration(number(14)+number(15)) * tick, guest: time.Duration(number(43)) * tick}, true
}

func allPIDs() []int {
	entries, _ := os.ReadDir("/proc")
	var pids []int
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, n)
		}
	}
	return pids
}

// family is the living processes among roots, those whose command line has one
// of the names, and all descendants of both.
func family(roots []int, names []string) []int {
	var all []stat
	in := make(map[int]bool)
	for _, p := range allPIDs() {
		s, ok := readStat(p)
		if !ok || s.state == 'Z' {
			continue
		}
		all = append(all, s)
		if slices.Contains(roots, p) || len(names) > 0 && commandLineContains(p, names) {
			in[p] = true
		}
	}
	for grew := true; grew; {
		grew = false
		for _, s := range all {
			if !in[s.pid] && in[s.parent] {
				in[s.pid], grew = true, true
			}
		}
	}
	var pids []int
	for _, s := range all {
		if in[s.pid] {
			pids = append(pids, s.pid)
		}
	}
	return pids
}

func commandLineContains(pid int, names []string) bool {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	return slices.ContainsFunc(names, func(n string) bool { return n != "" && bytes.Contains(b, []byte(n)) })
}

// commandLineHas says whether any process has the word in its command line.
func commandLineHas(word string) bool {
	return slices.ContainsFunc(allPIDs(), func(p int) bool {
		s, ok := readStat(p)
		return ok && s.state != 'Z' && commandLineContains(p, []string{word})
	})
}

// pidsNamed are the processes with one of these names.
func pidsNamed(names ...string) []int {
	var pids []int
	for _, p := range allPIDs() {
		b, _ := os.ReadFile("/proc/" + strconv.Itoa(p) + "/comm")
		if slices.Contains(names, strings.TrimSpace(string(b))) {
			pids = append(pids, p)
		}
	}
	return pids
}

// processes are those of the instance.
func (in *instance) processes() []int {
	var names []string
	if f, ok := in.engine.(finder); ok {
		names = f.Names(in.id)
	}
	return family([]int{in.cmd.Process.Pid}, names)
}

// memoryOf is the memory of processes. ram is that of a guest that they may have;
// ramFiles are the files that it is mapped from.
func memoryOf(pids []int, ram guestRAM, ramFiles []string) Memory {
	var m Memory
	for _, p := range pids {
		m.addProcess(p, ram)
	}
	for c := range memoryCgroups(pids) {
		m.Kernel += kernelCharge(c)
	}
	var files uint64
	for _, f := range ramFiles {
		files += blocksOf(f)
	}
	// Files in memory are there whether their pages are mapped or not.
	m.GuestRAM += files - min(files, m.ramMapped)
	return m
}

// blocksOf is what a file takes of what it lies on, in bytes.
func blocksOf(path string) uint64 {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return 0
	}
	return uint64(st.Blocks) * 512
}

func (m *Memory) addProcess(pid int, ram guestRAM) {
	dir := "/proc/" + strconv.Itoa(pid)
	b, err := os.ReadFile(dir + "/smaps")
	if err != nil {
		return
	}
	var pss, private, anonymous uint64
	isRAM := false
	inRAM := ram.mappings(b)
	flush := func() {
		if isRAM {
			m.GuestRAM += pss
			m.ramMapped += pss - min(pss, anonymous)
		} else {
			m.Private += private
			m.Shared += pss - min(pss, private)
		}
		pss, private, anonymous, isRAM = 0, 0, 0, false
	}
	sc := bufio.NewScanner(bytes.NewReader(b))
	for sc.Scan() {
		name, value, isField := strings.Cut(sc.Text(), ":")
		if !isField || strings.ContainsAny(name, " -") {
			flush() // a mapping's first line
			if m, ok := parseMapping(sc.Text()); ok {
				isRAM = inRAM(m)
			}
			continue
		}
		n := kilobytes(value)
		switch name {
		case "Pss":
			pss = n
		case "Private_Clean", "Private_Dirty":
			private += n
		case "Anonymous":
			anonymous = n
		}
	}
	flush()
	status, _ := os.ReadFile(dir + "/status")
	if _, rest, ok := bytes.Cut(status, []byte("VmPTE:")); ok {
		line, _, _ := bytes.Cut(rest, []byte("\n"))
		m.PageTables += kilobytes(string(line))
	}
}

// mapping is the first line of a mapping in smaps.
type mapping struct {
	from, to uint64
	offset   uint64 // in its file
}

func (m mapping) size() uint64 { return m.to - m.from }

func parseMapping(line string) (m mapping, ok bool) {
	var perms string
	n, _ := fmt.Sscanf(line, "%x-%x %s %x", &m.from, &m.to, &perms, &m.offset)
	return m, n == 4 && m.from < m.to
}

// guestRAM is a guest's RAM: its size in bytes, and the file of the kernel that
// it boots.
type guestRAM struct {
	size   uint64
	kernel string
}

// mappings says which mappings are the RAM: one that is as large, or where a VMM
// has mapped the kernel's file into it, all around that.
func (g guestRAM) mappings(smaps []byte) func(mapping) bool {
	if g.size == 0 {
		return func(mapping) bool { return false }
	}
	if begin, ok := g.begin(smaps); ok {
		// The last one may have grown together with what lies behind it.
		return func(m mapping) bool { return begin <= m.from && m.from < begin+g.size }
	}
	return func(m mapping) bool { return m.size() >= g.size && m.size() < g.size+g.size/2 }
}

// begin is where RAM is mapped, if a piece of the kernel's file is mapped where
// that is loaded.
func (g guestRAM) begin(smaps []byte) (uint64, bool) {
	f, err := elf.Open(g.kernel)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	for line := range strings.Lines(string(smaps)) {
		if !strings.HasSuffix(line, "/"+filepath.Base(g.kernel)+"\n") { // its folder may have other names
			continue
		}
		m, ok := parseMapping(line)
		for _, p := range f.Progs {
			if at := p.Paddr + m.offset - p.Off; ok && p.Type == elf.PT_LOAD && p.Off <= m.offset && m.offset-p.Off < p.Filesz && at <= m.from {
				return m.from - at, true
			}
		}
	}
	return 0, false
}

func kilobytes(s string) uint64 {
	n, _ := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(s), " kB"), 10, 64)
	return n << 10
}

// memoryCgroups are the folders of the cgroups that are made for instances,
// and so hold nothing else.
func memoryCgroups(pids []int) map[string]bool {
	own := cgroupOf(os.Getpid())
	found := make(map[string]bool)
	for _, p := range pids {
		if c := cgroupOf(p); c != "" && c != own && c != "/" {
			found[c] = true
		}
	}
	return found
}

// cgroupOf is the folder of the cgroup that a process's memory is charged to.
func cgroupOf(pid int) string {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	unified := ""
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(f) != 3:
		case slices.Contains(strings.Split(f[1], ","), "memory"):
			return filepath.Join("/sys/fs/cgroup/memory", f[2])
		case f[0] == "0":
			unified = filepath.Join("/sys/fs/cgroup", f[2])
		}
	}
	return unified
}

// kernelCharge is the kernel memory charged to a cgroup: "kernel" of memory.stat
// in version 2, memory.kmem.usage_in_bytes in version 1.
func kernelCharge(dir string) uint64 {
	if b, err := os.ReadFile(filepath.Join(dir, "memory.kmem.usage_in_bytes")); err == nil {
		n, _ := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
		return n
	}
	b, _ := os.ReadFile(filepath.Join(dir, "memory.stat"))
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "kernel" {
			n, _ := strconv.ParseUint(f[1], 10, 64)
			return n
		}
	}
	return 0
}

// unmountBelow unmounts what is mounted at a folder or below it.
func unmountBelow(dir string) error {
	b, err := os.ReadFile("/proc/thread-self/mounts")
	if err != nil {
		return err
	}
	var errs []error
	lines := slices.Collect(strings.Lines(string(b)))
	slices.Reverse(lines) // the last mounted first
	for _, line := range lines {
		if f := strings.Fields(line); len(f) > 1 && (f[1] == dir || strings.HasPrefix(f[1], dir+"/")) {
			errs = append(errs, unix.Unmount(f[1], unix.MNT_DETACH))
		}
	}
	return errors.Join(errs...)
}
