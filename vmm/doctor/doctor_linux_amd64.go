package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/vitrine-vmm/vitrine/vmm/kvm"
)

// Examine runs all checks. It needs a second at most and leaves nothing behind.
func Examine() Report {
	var r Report
	sys, err := kvm.Open()
	if err != nil {
		_, advice, _ := strings.Cut(err.Error(), ": ")
		r.add("/dev/kvm", Fail, reason(err), advice+"; guests can still run with --accel soft")
	} else {
		defer sys.Close()
		r.add("/dev/kvm", OK, "present, permitted, API version 12", "")
		capabilities(&r, sys)
		if !r.failed() {
			tinyGuests(&r, sys)
		}
	}
	r.CanRun = !r.failed()
	hugePages(&r)
	tap(&r)
	return r
}

func reason(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "missing"
	case errors.Is(err, fs.ErrPermission):
		return "not permitted"
	case errors.Is(err, unix.EBUSY):
		return "busy"
	}
	return err.Error()
}

func capabilities(r *Report, sys *kvm.System) {
	var missing []string
	n := 0
	for _, c := range kvm.Capabilities() {
		n++
		if sys.Check(c.Cap) != 0 {
			continue
		}
		missing = append(missing, c.Name)
		status := Warn
		if c.Required {
			status = Fail
		}
		r.add(c.Name, status, "missing", "a newer host kernel has it; it is for: "+c.Purpose)
	}
	if len(missing) == 0 {
		r.add("capabilities", OK, fmt.Sprintf("all %d that Vitrine uses", n), "")
	}
	cpus := sys.Check(kvm.CapMaxVCPUs)
	r.add("vcpus", OK, fmt.Sprintf("up to %d a guest, %d recommended", cpus, sys.Check(kvm.CapNrVCPUs)), "")
}

// emulatedAbove is the time of two instructions from which on guest kernel
// code cannot be running on the processor: hardware needs about one
// nanosecond, an emulator several hundred.
const emulatedAbove = 20.0

// KernelEmulated says whether the host emulates guest kernel code, as
// Report.Emulated does, without the other checks. It takes some milliseconds.
func KernelEmulated() (bool, error) {
	sys, err := kvm.Open()
	if err != nil {
		return false, err
	}
	defer sys.Close()
	ns, err := kernelSpeed(sys)
	return ns > emulatedAbove, err
}

func tinyGuests(r *Report, sys *kvm.System) {
	ns, err := kernelSpeed(sys)
	if err != nil {
		r.add("tiny guest", Fail, err.Error(), "KVM is present but cannot run a guest: look at the host's kernel log (dmesg)")
		return
	}
	r.NanosecondsPerIteration, r.Emulated = ns, ns > emulatedAbove
	found := fmt.Sprintf("%.1f ns for two instructions", ns)
	if r.Emulated {
		r.add("guest kernel code", Warn, "emulated by the host: "+found,
			"boots take seconds here; a host with VMX or SVM (bare metal, or nested virtualisation) needs a fraction; --accel soft boots faster on this one")
	} else {
		r.add("guest kernel code", OK, "runs on the processor: "+found, "")
	}
	taken, err := masksTaken(sys)
	switch {
	case err != nil:
		r.add("CPUID masks", Warn, err.Error(), "features cannot be hidden from guests for certain")
	case taken:
		r.MasksTaken = true
		r.add("CPUID masks", OK, "taken: a guest sees what it is given", "")
	default:
		r.add("CPUID masks", Warn, "not taken: the host forces its own feature bits on guests",
			"snapshots made here restore only on hosts with the same processor features")
	}
}

func hugePages(r *Report) {
	thp, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled")
	if err != nil {
		r.add("huge pages, transparent", Warn, "not in this kernel", "guests run on 4 KiB pages")
	} else {
		mode := "unknown"
		if _, rest, ok := strings.Cut(string(thp), "["); ok {
			mode, _, _ = strings.Cut(rest, "]")
		}
		status := OK
		if mode == "never" {
			status = Warn
		}
		r.add("huge pages, transparent", status, mode, "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled")
	}
	free, err := os.ReadFile("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
	n, _ := strconv.Atoi(strings.TrimSpace(string(free)))
	if err != nil || n == 0 {
		r.add("huge pages, 2 MiB", Warn, "none reserved", "for --hugepages 2M: echo 128 | sudo tee /proc/sys/vm/nr_hugepages")
		return
	}
	r.add("huge pages, 2 MiB", OK, fmt.Sprintf("%d free", n), "")
}

// tap tries what `--net tap` does: make a TAP interface. It is gone with the
// descriptor.
func tap(r *Report) {
	const device = "/dev/net/tun"
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		r.add("TAP", Warn, device+": "+reason(err), "for --net tap: sudo modprobe tun; --net user needs nothing")
		return
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("vitrine%d")
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		r.add("TAP", Warn, "cannot make an interface: "+err.Error(), "for --net tap run as root or with CAP_NET_ADMIN; --net user needs nothing")
		return
	}
	r.add("TAP", OK, "interfaces can be made", "")
}
