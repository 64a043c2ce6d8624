package compare

import (
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// describeHost says what the comparison runs on.
func describeHost(emulated bool) Host {
	h := Host{CPU: cpuModel(), CPUs: runtime.NumCPU(), KernelsEmulated: emulated, Cgroups: "v1", KVM: "none"}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		h.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		h.Memory = info.Totalram * uint64(info.Unit)
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		first, _, _ := strings.Cut(string(b), " ")
		h.LoadBefore, _ = strconv.ParseFloat(first, 64)
	}
	if _, err := os.Stat("/dev/kvm"); err == nil {
		h.KVM = "with hardware virtualisation"
		if emulated {
			h.KVM = "without hardware virtualisation: guest kernels are emulated"
		}
	}
	var fs unix.Statfs_t
	switch {
	case unix.Statfs("/sys/fs/cgroup", &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC:
		h.Cgroups = "v2"
	case hiddenUnified() != "":
		h.Cgroups = "v1 and v2 side by side"
	}
	return h
}

func cpuModel() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// dropCaches drops the page cache, the dentries and the inodes (proc_sys_vm(5)).
func dropCaches() error {
	unix.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
}
