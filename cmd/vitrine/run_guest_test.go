package main

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
)

// tinyKernel writes an ELF kernel that consists of code, entered in 64-bit
// mode at 1 MiB, and returns its path.
func tinyKernel(t testing.TB, code ...[]byte) string {
	t.Helper()
	const addr, headers = 1 << 20, 64 + 56
	text := bytes.Join(code, nil)
	ident := [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)}
	size := uint64(headers + len(text))
	var b bytes.Buffer
	for _, v := range []any{
		elf.Header64{Ident: ident, Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1,
			Entry: addr + headers, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1},
		elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: 7, Vaddr: addr, Paddr: addr, Filesz: size, Memsz: size, Align: 4096},
		text,
	} {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "tiny.elf")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// out is mov edx, port; mov al, v; out dx, al.
func out(port uint16, v byte) []byte {
	return []byte{0xba, byte(port), byte(port >> 8), 0, 0, 0xb0, v, 0xee}
}

var (
	powerOff = out(0x510, 0x11)
	reset    = out(0x64, 0xfe)
	forever  = []byte{0xeb, 0xfe} // jmp $
	invalid  = []byte{0x0f, 0x0b} // ud2, with no descriptor table for interrupts: a triple fault

	// receive waits for a character and has it in AL: mov edx, 0x3fd;
	// p: in al, dx; test al, 1; jz p; mov edx, 0x3f8; in al, dx.
	receive = []byte{0xba, 0xfd, 0x03, 0, 0, 0xec, 0xa8, 1, 0x74, 0xfb, 0xba, 0xf8, 0x03, 0, 0, 0xec}
	send    = []byte{0xee} // out dx, al
)

// times repeats code: mov ecx, n; l: code; dec ecx; jnz l.
func times(n uint32, code ...[]byte) []byte {
	body := append(bytes.Join(code, nil), 0xff, 0xc9, 0x75)
	body = append(body, byte(-len(body)-1))
	return append(binary.LittleEndian.AppendUint32([]byte{0xb9}, n), body...)
}

// syncBuffer is a buffer that may be read while it is written to.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// withoutAdvice leaves out the line that says what a host's KVM does with guest
// kernels, where it emulates them.
func withoutAdvice(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		if !strings.Contains(line, "KVM emulates guest kernels") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// guestRun runs a kernel by the command line and returns what became of it.
func guestRun(in io.Reader, args ...string) (status int, stdout, stderr string) {
	var o, e syncBuffer
	args = append([]string{"vitrine", "run", "--net", "none", "--memory", "16M"}, args...)
	status = run(context.Background(), args, in, &o, &e)
	return status, o.String(), e.String()
}

// eachAccel runs a test with each accelerator; with KVM only where it is.
func eachAccel(t *testing.T, f func(t *testing.T, accel string)) {
	t.Setenv("VITRINE_CACHE", t.TempDir())
	acceltest.Each(t, f)
}

func TestHowGuestsEnd(t *testing.T) {
	hello := append(out(0x3f8, 'h'), out(0x3f8, 'i')...)
	for _, c := range []struct {
		name   string
		code   [][]byte
		status int
		errors string
	}{
		{"power-off", [][]byte{hello, powerOff}, 0, ""},
		{"sleep state S5", [][]byte{hello, out(0x600, 5<<2|1<<5), forever}, 0, ""},
		{"reset line", [][]byte{hello, reset, forever}, 0, ""},
		{"reset register", [][]byte{hello, out(0x602, 1), forever}, 0, ""},
		{"panic", [][]byte{hello, out(0x505, 1), forever}, statusCrash, "panic"},
		{"triple fault", [][]byte{hello, invalid}, statusCrash, "triple fault on vcpu 0 at rip 0x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachAccel(t, func(t *testing.T, accel string) {
				status, stdout, stderr := guestRun(strings.NewReader(""), "--kernel", tinyKernel(t, c.code...), "--accel", accel)
				if status != c.status || stdout != "hi" || !strings.Contains(stderr, c.errors) {
					t.Errorf("status %d, want %d; output %q; errors %q", status, c.status, stdout, stderr)
				}
			})
		})
	}
}

// Everything comes back as it went in: a polling driver with FIFO.
func TestSerialPortLosesNothing(t *testing.T) {
	eachAccel(t, func(t *testing.T, accel string) {
		in := make([]byte, map[string]int{"soft": 256 << 10, "kvm": 8 << 10}[accel])
		r := rand.New(rand.NewPCG(1, 2))
		for i := range in {
			in[i] = byte(r.Uint32())
		}
		kernel := tinyKernel(t, out(0x3fa, 1), times(uint32(len(in)), receive, send), powerOff)
		status, stdout, stderr := guestRun(bytes.NewReader(in), "--kernel", kernel, "--accel", accel)
		if status != 0 || stdout != string(in) {
			t.Errorf("status %d, %d bytes of %d came back; errors %q", status, len(stdout), len(in), stderr)
		}
	})
}

func TestOnRebootRestart(t *testing.T) {
	// 'r' resets, anything else turns off: cmp al, 'r'; jne.
	rest := append(append([]byte{0x3c, 'r', 0x75, byte(len(reset) + len(forever))}, reset...), forever...)
	kernel := tinyKernel(t, receive, send, rest, powerOff)
	eachAccel(t, func(t *testing.T, accel string) {
		in, keyboard := io.Pipe()
		var o, e syncBuffer
		go func() {
			for n := range 3 {
				for strings.Count(e.String(), "the guest reboots") < n {
					time.Sleep(time.Millisecond)
				}
				fmt.Fprintf(keyboard, "%c", "rrq"[n])
			}
		}()
		status := run(context.Background(), []string{"vitrine", "run", "--net", "none", "--memory", "16M", "--kernel", kernel,
			"--accel", accel, "--on-reboot", "restart"}, in, &o, &e)
		if status != 0 || o.String() != "rrq" {
			t.Errorf("status %d, output %q, errors %q", status, o.String(), e.String())
		}
	})
}

// A shell's input that comes after a reboot is for the shell of the next boot.
func TestEmbeddedGuestRestarts(t *testing.T) {
	t.Setenv("VITRINE_CACHE", testCache)
	in, keyboard := io.Pipe()
	var o, e syncBuffer
	go func() {
		fmt.Fprintln(keyboard, "echo first; reboot")
		for !strings.Contains(e.String(), "the guest reboots") {
			time.Sleep(time.Millisecond)
		}
		fmt.Fprintln(keyboard, "echo second")
		keyboard.Close()
	}()
	status := run(context.Background(), []string{"vitrine", "run", "--accel", anyAccel(t), "--on-reboot", "restart"}, in, &o, &e)
	if status != 0 || o.String() != "first\nsecond\n" {
		t.Errorf("status %d, output %q, errors %q", status, o.String(), e.String())
	}
}

func TestTimingsAreInOrder(t *testing.T) {
	eachAccel(t, func(t *testing.T, accel string) {
		kernel := tinyKernel(t, out(0x3f8, '.'), out(0x510, 1), out(0x510, 2), powerOff)
		_, _, stderr := guestRun(strings.NewReader(""), "--kernel", kernel, "--accel", accel, "--timings")
		at := 0
		for _, phase := range []string{"first KVM_RUN", "first guest byte", "user space", "agent ready", "exit"} {
			i := strings.Index(stderr[at:], phase)
			if i < 0 {
				t.Fatalf("no %q after byte %d of %q", phase, at, stderr)
			}
			at += i
		}
	})
}

func TestConsoleIntoAFile(t *testing.T) {
	t.Setenv("VITRINE_CACHE", t.TempDir())
	file := filepath.Join(t.TempDir(), "console")
	kernel := tinyKernel(t, out(0x3f8, 'x'), powerOff)
	status, stdout, stderr := guestRun(nil, "--kernel", kernel, "--accel", anyAccel(t), "--console", file)
	text, err := os.ReadFile(file)
	if status != 0 || stdout != "" || string(text) != "x" || err != nil {
		t.Errorf("status %d, output %q, file %q, %v; errors %q", status, stdout, text, err, stderr)
	}
}

func TestTooLittleMemory(t *testing.T) {
	t.Setenv("VITRINE_CACHE", t.TempDir())
	initrd := filepath.Join(t.TempDir(), "initrd")
	if err := os.WriteFile(initrd, make([]byte, 32<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	status, _, stderr := guestRun(nil, "--kernel", tinyKernel(t, powerOff), "--accel", anyAccel(t), "--initrd", initrd)
	if stderr = withoutAdvice(stderr); status != statusFailure || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "memory") {
		t.Errorf("status %d, errors %q", status, stderr)
	}
}

func TestKeysEndTheGuest(t *testing.T) {
	t.Setenv("VITRINE_CACHE", t.TempDir())
	var e syncBuffer
	r := newRunner(mustParse(t, "--net", "none", "--accel", anyAccel(t), "--kernel", tinyKernel(t, forever)), nil, io.Discard, &e)
	r.in = newInput(&keys{r: strings.NewReader("\x01x")})
	if err := r.run(context.Background()); err != nil {
		t.Errorf("ended with %v, errors %q", err, e.String())
	}
}
