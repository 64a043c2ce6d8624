package vmm_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/boot"
	guestimages "github.com/vitrine-vmm/vitrine/guest-images"
	"github.com/vitrine-vmm/vitrine/vmm"
)

func TestGuestRunsCommands(t *testing.T) {
	t.Parallel()
	g := bootGuest(t, vmm.Config{})
	checkCommands(t, g)
}

// checkCommands: what a program writes and how it ends comes through.
func checkCommands(t *testing.T, g *guest) {
	t.Helper()
	for _, c := range []struct {
		command        string
		status         int
		stdout, stderr string
	}{
		{"true", 0, "", ""},
		{"exit 42", 42, "", ""},
		{"echo out; echo err >&2", 0, "out\n", "err\n"},
		{"kill -15 $$; while true; do true; done", 128 + 15, "", ""}, // the signal need not have come when kill has ended
	} {
		stdout, stderr, status := g.exec("sh", "-c", c.command)
		if stdout != c.stdout || stderr != c.stderr || status.ExitCode() != c.status {
			t.Errorf("%q: status %d, output %q, errors %q", c.command, status.ExitCode(), stdout, stderr)
		}
	}
}

func TestGuestSeesItsMemory(t *testing.T) {
	for _, mib := range []uint64{64, 256, 4 << 10, 6 << 10} {
		t.Run(fmt.Sprintf("%dM", mib), func(t *testing.T) {
			t.Parallel()
			g := bootGuest(t, vmm.Config{Memory: mib << 20})
			checkMemory(t, g, mib<<10)
		})
	}
}

// checkMemory: all memory is present but what lies below 1 MiB, and the kernel
// leaves what it does not take itself: its image, 64 bytes for each page of
// 4 KiB, and above 4 GiB the 64 MiB of its software IOMMU.
func checkMemory(t *testing.T, g *guest, kib uint64) {
	t.Helper()
	var total, free uint64
	info := g.must("cat", "/proc/meminfo")
	if _, err := fmt.Sscanf(info, "MemTotal: %d kB\nMemFree: %d kB", &total, &free); err != nil {
		t.Fatalf("%v in %q", err, info)
	}
	least := kib - 32<<10 - kib/64
	if kib > 3<<20 {
		least -= 64 << 10
	}
	if total > kib || total < least {
		t.Errorf("MemTotal is %d KiB of %d, want at least %d", total, kib, least)
	}
	if free > total || free < total*6/10 {
		t.Errorf("MemFree is %d KiB of %d", free, total)
	}
	var present uint64
	for line := range strings.Lines(g.must("cat", "/proc/zoneinfo")) {
		var pages uint64
		if n, _ := fmt.Sscanf(strings.TrimSpace(line), "present %d", &pages); n == 1 {
			present += 4 * pages
		}
	}
	// Persistent memory has a zone of its own, of no present pages.
	if present > kib || present < kib-1<<10 {
		t.Errorf("%d KiB of %d are present", present, kib)
	}
}

// The kernel is entered by both protocols, with both kernels.
func TestGuestEntryProtocols(t *testing.T) {
	for _, kernel := range guestimages.Kernels() {
		for name, protocol := range map[string]boot.Protocol{"PVH": boot.ProtocolPVH, "64-bit": boot.ProtocolLinux} {
			t.Run(kernel+" by "+name, func(t *testing.T) {
				t.Parallel()
				g := bootGuest(t, vmm.Config{Kernel: image(t, "kernel-"+kernel), ACPI: kernel == "full", Protocol: protocol})
				if got := g.must("uname", "-s"); got != "Linux\n" {
					t.Errorf("uname says %q", got)
				}
				// Linux notes "KVM" as the boot loader when entered by PVH
				// (arch/x86/platform/pvh/enlighten.c).
				loader := strings.TrimSpace(g.must("cat", "/proc/sys/kernel/bootloader_type"))
				if byPVH := loader == "176"; byPVH != (protocol == boot.ProtocolPVH) {
					t.Errorf("the kernel's boot loader is %s", loader)
				}
			})
		}
	}
}

// Two guests at once have nothing of each other's.
func TestGuestsSideBySide(t *testing.T) {
	t.Parallel()
	var gs [2]*guest
	for i := range gs {
		gs[i] = bootGuest(t, vmm.Config{CommandLine: fmt.Sprintf("%sguest%d", guestimages.ParamHostname, i)})
	}
	for i, g := range gs {
		g.sh(fmt.Sprintf("echo %d > /tmp/mine", i))
	}
	for i, g := range gs {
		if got, want := g.sh("cat /tmp/mine /proc/sys/kernel/hostname"), fmt.Sprintf("%d\nguest%d\n", i, i); got != want {
			t.Errorf("guest %d says %q, want %q", i, got, want)
		}
	}
}

// panicWords is a program that says what a kernel says; the run must not end
// by that.
const panicWords = `echo "Kernel panic - not syncing: words"; printf 'Kernel panic - not syncing: words\n---[ end Kernel panic - not syncing: words ]---\n' > /dev/ttyS0; sleep 1; `

func TestGuestEnds(t *testing.T) {
	for name, c := range map[string]struct {
		cfg     vmm.Config
		command string // run in the guest; "" waits
		cause   vmm.Cause
	}{
		"power-off":          {command: "poweroff", cause: vmm.CausePowerOff},
		"power-off, ACPI":    {cfg: vmm.Config{ACPI: true}, command: "poweroff", cause: vmm.CausePowerOff},
		"reboot":             {command: "reboot", cause: vmm.CauseReboot},
		"reboot, ACPI":       {cfg: vmm.Config{ACPI: true, CommandLine: "reboot=a"}, command: "reboot", cause: vmm.CauseReboot},
		"reboot by the BIOS": {cfg: vmm.Config{CommandLine: "reboot=b"}, command: "reboot", cause: vmm.CauseReboot},
		"reboot by a triple fault": {cfg: vmm.Config{CommandLine: "reboot=t"},
			command: "reboot", cause: vmm.CauseReboot},
		"panic without a restart": {cfg: vmm.Config{ACPI: true, CommandLine: "panic=0 initcall_blacklist=pvpanic_mmio_driver_init"},
			command: panicWords + "echo c > /proc/sysrq-trigger", cause: vmm.CausePanic},
		"panic": {cfg: vmm.Config{ACPI: true}, command: "echo c > /proc/sysrq-trigger", cause: vmm.CausePanic},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := bootGuest(t, c.cfg)
			go func() { // the connection may end before the answer
				_, _ = g.agent.Exec(t.Context(), shell(c.command))
			}()
			err := g.wait()
			if c.cause == vmm.CausePowerOff {
				if err != nil {
					t.Errorf("ended with %v", err)
				}
				return
			}
			if end := wantCause(t, err, c.cause); strings.Contains(end.Detail, "words") {
				t.Errorf("ended by a program's words: %v", err)
			}
		})
	}
}

// TestGuestUnpackedInitrd: a packed initial RAM disk that the VMM unpacks is
// one for the kernel, behind another archive too. Its init turns the machine
// off.
func TestGuestUnpackedInitrd(t *testing.T) {
	init, err := os.ReadFile(tinyKernel(t, []byte{ // an executable for Linux as well
		0xb8, 0xa9, 0, 0, 0, //             mov eax, SYS_reboot
		0xbf, 0xad, 0xde, 0xe1, 0xfe, //    mov edi, LINUX_REBOOT_MAGIC1
		0xbe, 0x69, 0x19, 0x12, 0x28, //    mov esi, LINUX_REBOOT_MAGIC2
		0xba, 0xdc, 0xfe, 0x21, 0x43, //    mov edx, LINUX_REBOOT_CMD_POWER_OFF
		0x45, 0x31, 0xd2, 0x0f, 0x05, //    xor r10d, r10d; syscall
		0xeb, 0xfe, //                      jmp $
	}))
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	packed.Write(cpio("early", make([]byte, 100)))
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(cpio("init", init)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	initrd := filepath.Join(t.TempDir(), "initrd")
	if err := os.WriteFile(initrd, packed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	accelerators(t, func(t *testing.T, accel string) {
		m := newMachine(t, vmm.Config{Kernel: image(t, "kernel-full"), Initrd: initrd, Memory: 64 << 20, Accel: accel,
			ACPI: true, CommandLine: "panic=-1 console=ttyS0 quiet"})
		if err := runFor(t, m, 5*time.Minute); err != nil {
			t.Error(err)
		}
	})
}

// cpio is an archive of one executable (Linux
// Documentation/driver-api/early-userspace/buffer-format.rst).
func cpio(name string, contents []byte) []byte {
	var b bytes.Buffer
	for _, f := range []struct {
		name     string
		contents []byte
	}{{name, contents}, {"TRAILER!!!", nil}} {
		fmt.Fprintf(&b, "070701%08X%08X%032X%08X%032X%08X%08X%s\x00", 0, 0o100755, 1, len(f.contents), 0, len(f.name)+1, 0, f.name)
		b.Write(make([]byte, -b.Len()&3))
		b.Write(f.contents)
		b.Write(make([]byte, -b.Len()&3))
	}
	return b.Bytes()
}
