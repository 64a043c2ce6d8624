package vmm_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
	"github.com/vitrine-vmm/vitrine/vmm/gdb"
	"github.com/vitrine-vmm/vitrine/vmm/symbols"
)

// debugged is a guest for a debugger, at 0x100078: a loop that counts in RBX
// and stores to memory, and then turns the machine off.
var debugged = append([]byte{
	0x31, 0xdb, // +0  xor ebx, ebx
	0x48, 0xff, 0xc3, // +2  inc rbx
	0x48, 0x89, 0x1c, 0x25, 0x00, 0x00, 0x20, 0x00, // +5  mov [0x200000], rbx
	0x48, 0x83, 0xfb, 0x05, // +13 cmp rbx, 5
	0x75, 0xef, // +17 jne +2
	0x90, // +19 nop
}, powerOff...)

// underGDB runs the guest with a debugger's commands and returns what GDB
// printed.
func underGDB(t *testing.T, accel string, commands ...string) (string, error) {
	t.Helper()
	return debug(t, vmm.Config{Kernel: tinyKernel(t, debugged), Accel: accel}, commands...)
}

// debug runs a machine with a debugger's commands.
func debug(t *testing.T, cfg vmm.Config, commands ...string) (string, error) {
	t.Helper()
	program, err := exec.LookPath("gdb")
	if err != nil {
		t.Skip("no gdb in PATH")
	}
	m := newMachine(t, cfg)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), acceltest.Limit(time.Minute))
	defer cancel()
	if err := m.Pause(ctx); err != nil { // so that the debugger sees the first instruction
		t.Fatal(err)
	}
	d := m.Debugger()
	served, ran := make(chan error, 1), make(chan error, 1)
	go func() { served <- gdb.Serve(ctx, l, d) }()
	go func() { err := m.Run(ctx); d.Ended(err); ran <- err }()

	args := []string{"-nx", "-batch", "-ex", "set confirm off", "-ex", "set architecture i386:x86-64", "-ex", "target remote " + l.Addr().String()}
	for _, c := range commands {
		args = append(args, "-ex", c)
	}
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("gdb: %v", err)
	}
	err = <-ran
	cancel()
	if e := <-served; e != nil {
		t.Error(e)
	}
	return string(out), err
}

func mustMatch(t *testing.T, text string, patterns ...string) {
	t.Helper()
	for _, p := range patterns {
		loc := regexp.MustCompile(p).FindStringIndex(text)
		if loc == nil {
			t.Fatalf("GDB did not print %q, in order", p)
		}
		text = text[loc[1]:]
	}
}

func TestDebugger(t *testing.T) {
	accelerators(t, func(t *testing.T, accel string) {
		out, err := underGDB(t, accel,
			"p/x $rip", "stepi", "p/x $rip", "p $rbx",
			"break *0x100085", "continue", "p $rbx", "continue", "p $rbx", // at the comparison
			"x/gx 0x200000", "set {long}0x200000 = 0x77", "x/gx 0x200000",
			"delete", "hbreak *0x10008b", "continue", "p $rbx", // at the nop
			"p/x $cr0 & 1", "p $cs", "p $efer", "info threads", "monitor walk 0x200000", "x/i $rip",
			"set $rbx = 42", "p $rbx", "p $mxcsr", "delete", "stepi", "p/x $rip", "continue")
		if err != nil {
			t.Errorf("the machine ended with %v", err)
		}
		mustMatch(t, out, `\$1 = 0x100078`, `\$2 = 0x10007a`, `\$3 = 0`,
			`Breakpoint 1, 0x0*100085`, `\$4 = 1`, `Breakpoint 1, 0x0*100085`, `\$5 = 2`,
			`0x200000:\s+0x0*2`, `0x200000:\s+0x0*77`,
			`Breakpoint 2, 0x0*10008b`, `\$6 = 5`, `\$7 = 0x1`, `\$8 = 16`, `\$9 = \[ LME LMA \]`, `CPU 0 \(64-bit, CPL 0\)`,
			`PML4\[0\]`, `=> 0x10008b:\s+nop`, `\$10 = 42`, `\$11 = `, `\$12 = 0x10008c`, `exited normally`)
	})
}

func TestDebuggerKillsAndDetaches(t *testing.T) {
	accelerators(t, func(t *testing.T, accel string) {
		if _, err := underGDB(t, accel, "break *0x100085", "continue", "kill"); err == nil {
			t.Error("a killed machine ended well")
		} else {
			wantCause(t, err, vmm.CauseStopped)
		}
		// With its breakpoint taken back, the guest runs to its end.
		if _, err := underGDB(t, accel, "break *0x100085", "continue", "detach"); err != nil {
			t.Errorf("after detach: %v", err)
		}
	})
}

func TestWatchpoints(t *testing.T) {
	accelerators(t, func(t *testing.T, accel string) {
		out, _ := underGDB(t, accel, "watch *(long*)0x200000", "continue", "p $rbx", "delete", "detach")
		if accel == "kvm" && !strings.Contains(out, "Hardware watchpoint 1: *(long*)0x200000\n\nOld value") {
			// What the host cannot do must be said, not ignored.
			mustMatch(t, out, `(?i)could not insert hardware|not supported|cannot`)
			return
		}
		mustMatch(t, out, `Old value = 0`, `New value = 1`, `\$1 = 1`)
	})
}

// TestGuestDebugger debugs the default kernel with two CPUs, by the names that
// the stripped kernel has of its functions.
func TestGuestDebugger(t *testing.T) {
	kernel := image(t, "kernel-lean")
	image, err := os.ReadFile(kernel)
	if err != nil {
		t.Fatal(err)
	}
	table, err := symbols.FromKernel(image)
	if err != nil {
		t.Fatal(err)
	}
	var elf bytes.Buffer
	if err := table.WriteELF(&elf); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "lean.symbols")
	if err := os.WriteFile(file, elf.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := vmm.Config{Kernel: kernel, Accel: acceltest.Of(t, acceltest.Soft), CPUs: 2, Memory: 128 << 20, CommandLine: "quiet panic=-1"}
	out, end := debug(t, cfg, "symbol-file "+file, "hbreak start_kernel", "continue", "bt 1", "info threads",
		"delete", "break sched_init", "continue", "bt 2", "stepi", "stepi", "x/i $rip",
		"set {long}($rsp-512) = 0x1234567", "x/gx $rsp-512", "delete",
		"break smp_init", "continue", "delete", "break start_secondary", "continue", "bt 1", "thread 1", "p $cr0", "info threads",
		"delete", "detach")
	mustMatch(t, out, `Breakpoint 1, 0x\w+ in start_kernel`, `#0 +0x\w+ in start_kernel`, `Thread 2 \(CPU 1`,
		`Breakpoint 2, 0x\w+ in sched_init`, `#1 +0x\w+ in start_kernel`, `=> 0x\w+ <sched_init\+\d+>`,
		`:\s+0x0*1234567`, `Breakpoint 3, 0x\w+ in smp_init`, `Breakpoint 4, 0x\w+ in start_secondary`, `#0 +0x\w+ in start_secondary`,
		`PG`, `64-bit, CPL 0`, `detached`)
	if end == nil {
		t.Error("a kernel without a root file system ended well")
	}
}
