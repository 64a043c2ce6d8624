//go:build linux && amd64

package steps

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// kvmFiles counts this process's descriptors of /dev/kvm and of VMs.
func kvmFiles() (systems, vms int) {
	const dir = "/proc/self/fd/"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, 0
	}
	for _, e := range entries {
		switch to, _ := os.Readlink(dir + e.Name()); to {
		case "/dev/kvm":
			systems++
		case "anon_inode:kvm-vm":
			vms++
		}
	}
	return systems, vms
}

func checkOpen(v VMM) error {
	systems, vms := kvmFiles()
	if err := v.Open(); err != nil {
		return fmt.Errorf("method Open: %w", err)
	}
	s, m := kvmFiles()
	if s <= systems {
		return errors.New("after Open /dev/kvm must be open, and it is not: kvm.Open opens it; keep what it returns")
	}
	if m <= vms {
		return errors.New("after Open there must be a VM, and there is none: System.CreateVM makes it")
	}
	if err := v.Close(); err != nil {
		return fmt.Errorf("method Close: %w", err)
	}
	if s, m = kvmFiles(); s > systems || m > vms {
		return errors.New("method Close must close the VM and /dev/kvm: one of them is still open")
	}
	return nil
}

const ramSize = 16 << 20

// withMemory is a VM with memory and something at Entry.
func withMemory(v VMM, code []byte) error {
	if err := v.Open(); err != nil {
		return fmt.Errorf("method Open: %w", err)
	}
	if err := v.AddMemory(ramSize); err != nil {
		return fmt.Errorf("method AddMemory: %w", err)
	}
	if err := v.Load(code, Entry); err != nil {
		return fmt.Errorf("method Load: %w", err)
	}
	return nil
}

func checkMemory(v VMM) error {
	text := []byte("step 2")
	if err := withMemory(v, text); err != nil {
		return err
	}
	g := v.Memory()
	if g == nil || g.Size() != ramSize {
		return errors.New("method Memory must be the memory that AddMemory has made, of its size")
	}
	got := make([]byte, len(text))
	if err := g.ReadAt(got, Entry); err != nil || !bytes.Equal(got, text) {
		return fmt.Errorf("method Load(%q, %#x) must put the bytes there, and there is %q (%v)", text, Entry, got, err)
	}
	if err := v.Load(text, ramSize-2); err == nil {
		return errors.New("method Load must refuse what reaches past the end of memory: a program may be larger than its memory")
	}
	return nil
}

// withCPU is a machine with a real-mode program.
func withCPU(v VMM, code []byte) error {
	if err := withMemory(v, code); err != nil {
		return err
	}
	if err := v.AddCPU(); err != nil {
		return fmt.Errorf("method AddCPU: %w", err)
	}
	return nil
}

func checkRealMode(v VMM) error {
	code := []byte{
		0x8c, 0xc8, // mov ax, cs
		0xe7, 0x80, // out 0x80, ax
		0xb0, 'A', // mov al, 'A'
		0xe6, 0x81, // out 0x81, al
	}
	if err := withCPU(v, code); err != nil {
		return err
	}
	x, err := v.Next()
	switch {
	case err != nil:
		return fmt.Errorf("method Next: %w: is the memory shown to the VM, with VM.MapMemory, and RIP %#x?", err, Entry)
	case x.Reason == x86.ExitShutdown:
		return errors.New("the CPU shut down: after AddCPU it must be in real mode with RIP at Entry: take Sregs, set base and selector of CS to 0, SetSregs; then SetRegs")
	case x.Reason != x86.ExitIO || !x.Write || x.Port != 0x80 || x.Size != 2:
		return fmt.Errorf("the first exit must be an OUT of 2 bytes to port 0x80, and is %v (port %#x, address %#x): is RIP %#x?", x.Reason, x.Port, x.Addr, Entry)
	case x.Data[0] != 0 || x.Data[1] != 0:
		return fmt.Errorf("CS must be 0, and is %#x: after reset it is 0xf000 with its base at the end of 4 GiB; set both selector and base", binary.LittleEndian.Uint16(x.Data))
	}
	if x, err = v.Next(); err != nil || x.Port != 0x81 || x.Data[0] != 'A' {
		return fmt.Errorf("the second exit must be an OUT of 'A' to port 0x81, and is %v to port %#x (%v)", x.Reason, x.Port, err)
	}
	return nil
}

// errEnd is what the device returns that ends a run.
var errEnd = errors.New("the end")

// probe is a device that remembers what was written to it, and answers reads
// with 1, 2, 3…
type probe struct {
	got   []byte
	reads byte
	end   uint16 // a write to this port ends the run
	ended bool
}

func (d *probe) Read(_ uint16, p []byte) error {
	d.reads++
	p[0] = d.reads
	return nil
}

func (d *probe) Write(port uint16, p []byte) error {
	if port == d.end {
		d.ended = true
		return errEnd
	}
	d.got = append(d.got, p...)
	return nil
}

// ends says whether a run ended as it should.
func ends(err error, where string) error {
	if errors.Is(err, errEnd) {
		return nil
	}
	return fmt.Errorf("%s must end with the error that the device returned, and ended with: %v", where, err)
}

func checkPorts(v VMM) error {
	code := []byte{
		0xe4, 0x90, // in al, 0x90
		0xe6, 0x91, // out 0x91, al
		0xe4, 0x90, // in al, 0x90
		0xe6, 0x91, // out 0x91, al
		0xe4, 0x70, // in al, 0x70: nobody is there
		0xe6, 0x91, // out 0x91, al
		0xbe, 0x1b, 0x80, // mov si, text
		0xb9, 3, 0, // mov cx, 3
		0xba, 0x91, 0, // mov dx, 0x91
		0xf3, 0x6e, // rep outsb
		0xe6, 0x70, // out 0x70, al: nobody is there
		0xe6, 0x9f, // out 0x9f, al
	}
	if err := withCPU(v, append(code, "xyz"...)); err != nil {
		return err
	}
	d := &probe{end: 0x9f}
	v.Attach(0x90, 0x9f, d)
	if err := ends(v.Run(), "Run"); err != nil {
		return err
	}
	want := []byte{1, 2, 0xff, 'x', 'y', 'z'}
	switch {
	case bytes.Equal(d.got, want):
		return nil
	case len(d.got) < 2 || d.got[0] != 1 || d.got[1] != 2:
		return fmt.Errorf("port 0x90 answered 1 and 2, and the guest read %v: the answer goes into Exit.Data, in place", d.got[:min(2, len(d.got))])
	case len(d.got) > 2 && d.got[2] != 0xff:
		return fmt.Errorf("a port without a device must read as 0xff, and read %#x", d.got[2])
	}
	return fmt.Errorf("REP OUTSB must send \"xyz\" a byte at a time, and the device got %q: one exit has Count accesses of Size bytes, and the data advance, not the port", d.got[min(3, len(d.got)):])
}

func checkLongMode(v VMM) error {
	const entry = 0x10_0000
	if err := withCPU(v, nil); err != nil {
		return err
	}
	code := []byte{
		0x31, 0xc0, // xor eax, eax
		0x48, 0x90, // xchg rax, rax; in 32-bit mode dec eax, and nop
		0xba, 0x90, 0, 0, 0, // mov edx, 0x90
		0xef,       // out dx, eax
		0x85, 0xc0, // test eax, eax
		0x74, 3, // jz on
		0xb2, 0x9f, // mov dl, 0x9f
		0xee,                                                       // out dx, al
		0x48, 0xb8, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, // mov rax, 0x1122334455667788
		0x48, 0xc1, 0xe8, 32, // shr rax, 32
		0xba, 0x90, 0, 0, 0, // mov edx, 0x90
		0xef,                // out dx, eax
		0xbb, 0, 0, 0xf0, 0, // mov ebx, 15 MiB
		0x89, 0x03, // mov [rbx], eax: through the page tables
		0x8b, 0x03, // mov eax, [rbx]
		0xef,       // out dx, eax
		0xb2, 0x9f, // mov dl, 0x9f
		0xee, // out dx, al
	}
	if err := v.Load(code, entry); err != nil {
		return fmt.Errorf("method Load: %w", err)
	}
	if err := v.LongMode(entry); err != nil {
		return fmt.Errorf("method LongMode: %w", err)
	}
	d := &probe{end: 0x9f}
	v.Attach(0x90, 0x9f, d)
	if err := ends(v.Run(), "a program in long mode"); err != nil {
		return err
	}
	if len(d.got) < 4 || d.got[0] != 0 {
		return errors.New("the CPU executes 32-bit code: 64-bit mode needs EFER.LME and LMA, CR0.PG, CR4.PAE and L in CS, with DB clear")
	}
	if want := []byte{0x44, 0x33, 0x22, 0x11, 0x44, 0x33, 0x22, 0x11}; !bytes.Equal(d.got[4:], want) {
		return fmt.Errorf("a 64-bit register must hold 64 bits, and memory what was stored: the program sent % x, want % x", d.got[4:], want)
	}
	return nil
}

// limited is a writer that fails when it has had enough.
type limited struct {
	b     strings.Builder
	bytes int
}

func (w *limited) Write(p []byte) (int, error) {
	w.b.Write(p)
	if w.b.Len() >= w.bytes {
		return len(p), errEnd
	}
	return len(p), nil
}

func checkSerial(v VMM) error {
	code := []byte{
		0xbe, 0x1b, 0x80, // mov si, text
		0xbd, 5, 0, // mov bp, 5
		0xba, 0xfd, 0x03, // next: mov dx, 0x3fd: line status
		0xb9, 0, 0, // mov cx, 0: 65,536 tries
		0xec,       // wait: in al, dx
		0xa8, 0x20, // test al, 0x20: the transmitter is free
		0xe1, 0xfb, // loope wait
		0xac,             // lodsb
		0xba, 0xf8, 0x03, // mov dx, 0x3f8
		0xee,       // out dx, al
		0x4d,       // dec bp
		0x75, 0xed, // jnz next
		0xe6, 0x9f, // out 0x9f, al
	}
	if err := withCPU(v, append(code, "ready"...)); err != nil {
		return err
	}
	w, d := &limited{bytes: 5}, &probe{end: 0x9f}
	v.Serial(w)
	v.Attach(0x90, 0x9f, d)
	if err := ends(v.Run(), "Run"); err != nil {
		return err
	}
	switch got := w.b.String(); {
	case got == "":
		return errors.New("nothing has come out of COM1: Serial attaches a device to the ports 0x3f8 to 0x3ff, and what is written to 0x3f8 goes to the writer")
	case got != "ready":
		return fmt.Errorf("COM1 must send \"ready\", and sent %q: what is written to port 0x3f8 is the next character", got)
	case d.ended:
		return errors.New("method Run must end when the console's writer fails: its error is the device's")
	}
	return checkStatus(v, d)
}

// checkStatus reads COM1's line status, in a machine that has sent something.
func checkStatus(v VMM, d *probe) error {
	code := []byte{0xba, 0xfd, 0x03, 0xec, 0xe6, 0x90, 0xe6, 0x9f} // mov dx, 0x3fd; in al, dx; out 0x90, al; out 0x9f, al
	g := v.Memory()
	if err := g.WriteAt(code, memory.Addr(Entry+22)); err != nil { // where it went on
		return err
	}
	if err := ends(v.Run(), "Run"); err != nil {
		return err
	}
	if len(d.got) != 1 || d.got[0]&0x60 != 0x60 {
		return fmt.Errorf("the line status register (0x3fd) must say that the transmitter is free, bits 5 and 6, and is % x: a driver polls it before each character", d.got)
	}
	return nil
}
