package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	guestimages "github.com/vitrine-vmm/vitrine/guest-images"
	"github.com/vitrine-vmm/vitrine/vmm"
)

// These benchmarks compare the whole program with QEMU's microvm, on the same
// guest, in turns, so that what else the host does disturbs both. What is
// missing for a comparison is said in a line of the output.

const benchRAM = 128 << 20

// benchWords is the kernel's command line, for both.
const benchWords = "console=ttyS0 quiet panic=-1 " + guestimages.FewerInstructions

// bench is what the benchmarks of a run share.
type bench struct {
	dir                    string
	program                string // as it is released
	kernel, initrd, helper string
	disk                   string // of 8 MiB
	qemu                   string // "" where it is missing
	qemuCPU                string // its model under KVM; "" where it cannot use KVM
}

var theBench struct {
	sync.Mutex
	*bench
	missing error
}

func newBench(b *testing.B) *bench {
	b.Helper()
	theBench.Lock()
	defer theBench.Unlock()
	if theBench.bench == nil && theBench.missing == nil {
		theBench.bench, theBench.missing = makeBench(filepath.Join(testCache, "bench"))
	}
	if theBench.missing != nil {
		b.Skip(theBench.missing)
	}
	return theBench.bench
}

func makeBench(dir string) (*bench, error) {
	x := &bench{dir: dir, program: filepath.Join(dir, "vitrine"), helper: filepath.Join(dir, "firstrun"),
		initrd: filepath.Join(dir, "initrd"), disk: filepath.Join(dir, "disk")}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	if x.kernel, err = guestimages.Path(testCache, guestimages.KernelLean); err != nil {
		return nil, err
	}
	init := filepath.Join(dir, "init")
	for _, c := range [][]string{
		{"go", "build", "-trimpath", "-ldflags", "-s -w", "-o", x.program, "."},
		{"gcc", "-O2", "-o", x.helper, "testdata/bench/firstrun.c"},
		{"gcc", "-O2", "-static", "-nostdlib", "-fno-stack-protector", "-fcf-protection=none", "-s", "-o", init, "testdata/bench/init.c"},
	} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("nothing to compare: %q: %w\n%s", c, err, out)
		}
	}
	program, err := os.ReadFile(init)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(x.initrd, initramfs(program), 0o600); err != nil {
		return nil, err
	}
	if err := os.WriteFile(x.disk, bytes.Repeat([]byte("vitrine "), 1<<20), 0o600); err != nil {
		return nil, err
	}
	x.findQEMU()
	return x, nil
}

// findQEMU looks for a QEMU, and for a CPU model that it can have under this
// host's KVM: "host" where all of its registers can be set.
func (x *bench) findQEMU() {
	path, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return
	}
	x.qemu = path
	for _, cpu := range []string{"host", "qemu64"} {
		cmd := exec.Command(path, "-M", "microvm", "-accel", "kvm", "-cpu", cpu, "-S", "-nodefaults", "-display", "none", "-monitor", "stdio")
		cmd.Stdin = strings.NewReader("quit\n")
		if cmd.Run() == nil {
			x.qemuCPU = cpu
			return
		}
	}
}

// initramfs is an archive (cpio(5), "newc") with /dev/console and init.
func initramfs(init []byte) []byte {
	var b bytes.Buffer
	entry := func(name string, mode, major, minor int, data []byte) {
		fmt.Fprintf(&b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
			b.Len(), mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name)+1, 0, name)
		b.Write(make([]byte, -b.Len()&3))
		b.Write(data)
		b.Write(make([]byte, -b.Len()&3))
	}
	entry("dev", 0o40755, 0, 0, nil)
	entry("dev/console", 0o20600, 5, 1, nil)
	entry("init", 0o100755, 0, 0, init)
	entry("TRAILER!!!", 0, 0, 0, nil)
	return b.Bytes()
}

// rival is a VMM that is measured.
type rival struct {
	name  string // of the VMM and how it executes the guest
	accel string // kvm, or that of the VMM's that needs none
	args  func(job string) []string
}

// vitrine and microvm are the two, under KVM or by their interpreters.
func (x *bench) vitrine(accel string) rival {
	return rival{"vitrine-" + accel, accel, func(job string) []string {
		return []string{x.program, "run", "--accel", accel, "--kernel", "lean", "--initrd", x.initrd, "--memory", "128M", "--net", "none",
			"--disk", x.disk + ",ro", "--append", benchWords + " reboot=k " + job}
	}}
}

func (x *bench) microvm(accel string) rival {
	cpu := map[string]string{"kvm": x.qemuCPU, "tcg": "max"}[accel]
	return rival{"qemu-" + accel, accel, func(job string) []string {
		return []string{x.qemu, "-M", "microvm,acpi=off,isa-serial=on,rtc=on", "-accel", accel, "-cpu", cpu, "-m", "128M",
			"-no-user-config", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio",
			"-drive", "id=disk,format=raw,if=none,readonly=on,file=" + x.disk, "-device", "virtio-blk-device,drive=disk",
			"-kernel", x.kernel, "-initrd", x.initrd, "-append", benchWords + " reboot=t " + job}
	}}
}

// rivals are those that can boot a Linux here. QEMU under KVM needs a KVM that
// runs guest kernels on the processor: it completes no instruction.
func (x *bench) rivals(b *testing.B) (all []rival) {
	b.Helper()
	emulated := vmm.KernelsEmulated()
	_, err := os.Stat("/dev/kvm")
	if kvm := err == nil; kvm {
		all = append(all, x.vitrine("kvm"))
		switch {
		case x.qemu == "" || x.qemuCPU == "":
		case emulated:
			b.Log("QEMU under KVM is left out: this host's KVM emulates guest kernels, and QEMU does not go on where that emulator fails")
		default:
			all = append(all, x.microvm("kvm"))
		}
	}
	all = append(all, x.vitrine("soft"))
	if x.qemu == "" {
		b.Log("QEMU is left out: qemu-system-x86_64 is not on PATH (Debian: qemu-system-x86)")
		return all
	}
	return append(all, x.microvm("tcg"))
}

// running is a VMM whose output somebody waits for.
type running struct {
	b     *testing.B
	cmd   *exec.Cmd
	began time.Time
	out   syncBuffer
	ended chan struct{}
}

// start runs it with nothing at its standard input.
func (r rival) start(b *testing.B, job string) *running {
	b.Helper()
	args := r.args(job)
	p := &running{b: b, cmd: exec.Command(args[0], args[1:]...), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), "VITRINE_CACHE="+testCache, "XDG_RUNTIME_DIR="+b.TempDir())
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if _, err := p.cmd.StdinPipe(); err != nil {
		b.Fatal(err)
	}
	p.began = time.Now()
	if err := p.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	b.Cleanup(p.kill)
	return p
}

func (p *running) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.ended
}

// until waits for a line of the guest's, and returns the time since the exec.
func (p *running) until(line string) time.Duration {
	p.b.Helper()
	for !strings.Contains(p.out.String(), line+"\r\n") {
		select {
		case <-p.ended:
			p.b.Fatalf("it ended without %q:\n%s", line, p.out.String())
		case <-time.After(time.Millisecond):
		}
		if time.Since(p.began) > 5*time.Minute {
			p.b.Fatalf("no %q:\n%s", line, p.out.String())
		}
	}
	return time.Since(p.began)
}

// toEnd waits for the end, and returns the time since the exec.
func (p *running) toEnd() time.Duration {
	<-p.ended
	return time.Since(p.began)
}

// median of at least one.
func median[T int64 | float64 | time.Duration](xs []T) T {
	s := slices.Sorted(slices.Values(xs))
	return s[len(s)/2]
}

// report gives each rival's median, in units of which one is unit.
func report[T int64 | float64 | time.Duration](b *testing.B, what string, unit T, names []string, values map[string][]T) {
	for _, n := range names {
		if len(values[n]) > 0 {
			b.ReportMetric(float64(median(values[n]))/float64(unit), n+"-"+what)
		}
	}
}

// BenchmarkStart is the time from exec to the first KVM_RUN.
func BenchmarkStart(b *testing.B) {
	x := newBench(b)
	if _, err := os.Stat("/dev/kvm"); err != nil {
		b.Skip(err)
	}
	rs := []rival{x.vitrine("kvm")}
	if x.qemuCPU != "" {
		rs = append(rs, x.microvm("kvm"))
	} else {
		b.Log("QEMU is left out: there is none on PATH, or it cannot use this host's KVM")
	}
	values, names := map[string][]time.Duration{}, []string{}
	for _, r := range rs {
		names = append(names, r.name)
	}
	for range b.N {
		for _, r := range rs {
			cmd := exec.Command(x.helper, r.args("job=exit")...)
			cmd.Env = append(os.Environ(), "VITRINE_CACHE="+testCache)
			out, err := cmd.Output()
			if err != nil {
				b.Fatalf("%s: %v: %s", r.name, err, out)
			}
			ns, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			values[r.name] = append(values[r.name], time.Duration(ns))
		}
	}
	report(b, "ms", time.Millisecond, names, values)
}

// BenchmarkBoot is the time from exec to the first line of user space, and to
// the end of a guest that then restarts.
func BenchmarkBoot(b *testing.B) {
	x := newBench(b)
	rs := x.rivals(b)
	user, end, names := map[string][]time.Duration{}, map[string][]time.Duration{}, []string{}
	for _, r := range rs {
		names = append(names, r.name)
	}
	for range b.N {
		for _, r := range rs {
			p := r.start(b, "job=exit")
			user[r.name] = append(user[r.name], p.until("user space"))
			end[r.name] = append(end[r.name], p.toEnd())
		}
	}
	report(b, "user-ms", time.Millisecond, names, user)
	report(b, "exit-ms", time.Millisecond, names, end)
	if len(user["qemu-tcg"]) > 0 { // two interpreters of the same guest: below 1 is faster than QEMU's
		b.ReportMetric(float64(median(user["vitrine-soft"]))/float64(median(user["qemu-tcg"])), "soft/tcg-user")
		b.ReportMetric(float64(median(end["vitrine-soft"]))/float64(median(end["qemu-tcg"])), "soft/tcg-exit")
	}
}

// BenchmarkCommand is vitrine run -- true, with the embedded guest.
func BenchmarkCommand(b *testing.B) {
	x := newBench(b)
	accels := []string{"soft"}
	if _, err := os.Stat("/dev/kvm"); err == nil {
		accels = append(accels, "kvm")
	}
	for _, accel := range accels {
		b.Run(accel, func(b *testing.B) {
			var user, end, count, rate []float64
			for range b.N {
				cmd := exec.Command(x.program, "run", "--accel", accel, "--memory", "128M", "--timings", "--", "true")
				cmd.Env = append(os.Environ(), "VITRINE_CACHE="+testCache)
				out, err := cmd.CombinedOutput()
				if err != nil {
					b.Fatalf("%v\n%s", err, out)
				}
				user, end = append(user, timing(b, out, "user space")), append(end, timing(b, out, "exit"))
				if accel == "soft" {
					n, r := executed(b, out)
					count, rate = append(count, n), append(rate, r)
				}
			}
			if accel == "soft" {
				b.ReportMetric(median(count)/1e6, "Minstructions")
				b.ReportMetric(median(rate), "MIPS")
			}
			b.ReportMetric(median(user), "user-ms")
			b.ReportMetric(median(end), "exit-ms")
		})
	}
}

// executed reads the line of instructions: how many, and millions a second.
func executed(b *testing.B, table []byte) (n, rate float64) {
	b.Helper()
	for line := range strings.Lines(string(table)) {
		if _, err := fmt.Sscanf(line, "instructions %f %f M/s", &n, &rate); err == nil {
			return n, rate
		}
	}
	b.Fatalf("no instructions in %s", table)
	return 0, 0
}

// timing reads a line of --timings, in milliseconds.
func timing(b *testing.B, table []byte, phase string) (ms float64) {
	b.Helper()
	for line := range strings.Lines(string(table)) {
		if rest, ok := strings.CutPrefix(line, phase+" "); ok {
			if _, err := fmt.Sscanf(strings.TrimSpace(rest), "%f ms", &ms); err == nil {
				return ms
			}
		}
	}
	b.Fatalf("no %q in %s", phase, table)
	return 0
}
