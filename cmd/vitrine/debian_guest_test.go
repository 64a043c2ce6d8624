//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
)

const (
	debianSuite   = "trixie"
	debianMirror  = "http://deb.debian.org/debian"
	debianPackage = "linux-image-cloud-amd64"
)

// debian is an installed Debian: its root file system in an image, and the
// kernel and initial RAM disk of its package, made by its own tools.
type debian struct{ image, kernel, initrd string }

// debianFiles makes a Debian, or takes the one that an earlier run made, which
// is kept in the user's cache folder.
func debianFiles(t *testing.T) debian {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "vitrine-tests", "debian-"+debianSuite)
	d := debian{filepath.Join(dir, "root.ext4"), filepath.Join(dir, "vmlinuz"), filepath.Join(dir, "initrd.img")}
	if _, err := os.Stat(dir); err == nil {
		return d
	}
	for tool, pkg := range map[string]string{"debootstrap": "debootstrap", "mkfs.ext4": "e2fsprogs"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no Debian to boot: %s is missing (Debian: %s)", tool, pkg)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("no Debian to boot: debootstrap has to be run by root")
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), "making-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(work)
	debootstrap(t, work)
	if err := os.Rename(work, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	return d
}

// debootstrap installs a Debian and puts the files of debianFiles into dir.
func debootstrap(t *testing.T, dir string) {
	t.Helper()
	root := filepath.Join(dir, "root")
	// Packages come from the mirror: without it there is nothing to test with.
	out, err := exec.Command("debootstrap", "--variant=minbase", "--include=systemd-sysv,udev,iproute2,"+debianPackage,
		debianSuite, root, debianMirror).CombinedOutput()
	if err != nil {
		t.Skipf("no Debian to boot: debootstrap from %s: %v\n%s", debianMirror, err, out[max(0, len(out)-2000):])
	}
	for _, step := range [][]string{
		{"chroot", root, "passwd", "-d", "root"},
		{"sh", "-c", "echo debian > " + root + "/etc/hostname"},
		{"sh", "-c", fmt.Sprintf("cp %[1]s/boot/vmlinuz-* %[2]s/vmlinuz && cp %[1]s/boot/initrd.img-* %[2]s/initrd.img", root, dir)},
		{"mkfs.ext4", "-q", "-L", "debian", "-d", root, filepath.Join(dir, "root.ext4"), "2G"},
		{"rm", "-rf", root},
	} {
		if out, err := exec.Command(step[0], step[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", step, err, out)
		}
	}
}

// dialog is a program to whose standard input and output somebody sits.
type dialog struct {
	t    *testing.T
	cmd  *exec.Cmd
	keys io.Writer
	out  syncBuffer
	read int // of out, by until
	end  chan error
}

func newDialog(t *testing.T, cmd *exec.Cmd) *dialog {
	t.Helper()
	d := &dialog{t: t, cmd: cmd, end: make(chan error, 1)}
	var err error
	if d.keys, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = &d.out, &d.out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { d.end <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	})
	return d
}

// until waits until the program has written text, and returns what it wrote
// before that and after the last call.
func (d *dialog) until(text string, limit time.Duration) string {
	d.t.Helper()
	for stop := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		out := d.out.String()[d.read:]
		if before, _, ok := strings.Cut(out, text); ok {
			d.read += len(before) + len(text)
			return before
		}
		select {
		case err := <-d.end:
			d.t.Fatalf("it ended before it said %q: %v\n%s", text, err, out)
		default:
		}
		if time.Now().After(stop) {
			d.t.Fatalf("after %v it has not said %q:\n%s", limit, text, out)
		}
	}
}

func (d *dialog) say(line string) {
	d.t.Helper()
	if _, err := io.WriteString(d.keys, line+"\n"); err != nil {
		d.t.Fatal(err)
	}
}

// ended waits for the end and returns the exit status.
func (d *dialog) ended(limit time.Duration) int {
	d.t.Helper()
	select {
	case <-d.end:
	case <-time.After(limit):
		d.t.Fatalf("after %v it has not ended:\n%s", limit, d.out.String()[d.read:])
	}
	return d.cmd.ProcessState.ExitCode()
}

// Debian's user space boots with the default kernel and with Debian's own,
// neither changed for the other, to a login that works. The limits are for KVM
// that emulates guest kernels, on a busy host.
func TestDebian(t *testing.T) {
	if os.Getenv("VITRINE_SLOW") == "" {
		t.Skip("boots Debian: set VITRINE_SLOW=1")
	}
	files := debianFiles(t)
	own := []string{"--kernel", files.kernel, "--initrd", files.initrd}
	for _, c := range []struct {
		name, accel string
		args        []string
		login       time.Duration // at most until the login prompt
		release     string        // in the kernel's name
	}{
		{"default kernel", "soft", nil, 5 * time.Minute, "vitrine"},
		{"own kernel", "soft", own, 10 * time.Minute, "cloud-amd64"},
		{"default kernel", "kvm", nil, 45 * time.Minute, "vitrine"},
		{"own kernel", "kvm", own, 90 * time.Minute, "cloud-amd64"},
	} {
		t.Run(c.name+" on "+c.accel, func(t *testing.T) {
			acceltest.Only(t, c.accel, "the other has a case of its own")
			bootDebian(t, files.image, c.accel, c.args, c.login, c.release)
		})
	}
}

// Debian's shell as process 1, on the default kernel: neither systemd nor udev.
func TestDebianShell(t *testing.T) {
	if os.Getenv("VITRINE_SLOW") == "" {
		t.Skip("boots Debian: set VITRINE_SLOW=1")
	}
	files := debianFiles(t)
	acceltest.Each(t, func(t *testing.T, accel string) {
		const limit = 10 * time.Minute
		began := time.Now()
		d := newDialog(t, program(t, "run", "--accel", accel, "--disk", overlayOf(t, files.image)+",format=qcow2,id=debian",
			"--root", "id=debian", "--append", "init=/bin/sh"))
		d.until("# ", limit)
		t.Logf("a prompt after %.1f s", time.Since(began).Seconds())
		d.say("echo begin; uname -r; echo written > /root/file; sync; cat /root/file; echo end")
		d.until("begin\r\n", limit)
		if got := d.until("end\r\n", limit); !strings.Contains(got, "vitrine") || !strings.Contains(got, "written\r\n") {
			t.Errorf("its answers are %q", got)
		}
		d.say("mount -o remount,ro /; mount -t proc proc /proc; echo o > /proc/sysrq-trigger; sleep 10")
		if status := d.ended(limit); status != 0 {
			t.Errorf("after power-off the status is %d:\n%s", status, d.out.String()[d.read:])
		}
	})
}

func bootDebian(t *testing.T, image, accel string, args []string, login time.Duration, release string) {
	overlay := overlayOf(t, image)
	args = slices.Concat([]string{"run", "--accel", accel,
		"--disk", overlay + ",format=qcow2,id=debian", "--root", "id=debian"}, args)
	began := time.Now()
	d := newDialog(t, program(t, args...))
	d.until(" login: ", login)
	t.Logf("a login prompt after %.1f s", time.Since(began).Seconds())
	d.say("root")
	d.until("root@debian:~# ", login/2)
	d.say("echo begin; uname -r; cat /etc/os-release; systemd-detect-virt; echo written > /root/file; sync; cat /root/file; echo end")
	d.until("begin\r\n", login/2)
	got := d.until("end\r\n", login/2)
	for _, want := range []string{release, "VERSION_CODENAME=" + debianSuite, "written\r\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("its answers are %q, without %q", got, want)
		}
	}
	d.say("poweroff")
	if status := d.ended(login); status != 0 {
		t.Errorf("after poweroff the status is %d:\n%s", status, d.out.String()[d.read:])
	}
	t.Logf("turned off after %.1f s", time.Since(began).Seconds())
}
