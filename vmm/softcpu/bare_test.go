package softcpu

import (
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// bare is CPUs without devices, in front of a memory that a test lays out. Its
// first 4 MiB are mapped to themselves in pages of 4 KiB; what raises a vector
// ends in a handler that writes any byte to the port of that number
// (not for those where the accelerator's own chips are).
type bare struct {
	t   testing.TB
	vm  *VM
	cpu []*VCPU
	ram []byte
}

// Where things are: linear addresses are physical ones.
const (
	bareGDT    = 0x1000
	bareIDT    = 0x2000
	bareTSS    = 0x3000
	bareStubs  = 0x4000 // 16 bytes for each vector
	bareStack  = 0x8000 // of handlers, grows down
	bareAP     = 0x9000 // real-mode code of other CPUs
	bareUser   = 0xf000 // the stack of the code under test, grows down
	barePML4   = 0x10000
	barePT     = barePML4 + 0x3000 // of the first 2 MiB; the next follows
	bareCode   = 0x100000
	barePage   = 0x200000 // a page for a test to play with
	bareMemory = 8 << 20

	selCode   = 0x08
	selData   = 0x10
	selUser   = 0x18 | 3 // data
	selUser64 = 0x20 | 3
	selTSS    = 0x28
	selCode32 = 0x38
)

func newBare(t testing.TB, opts Options, cpus int) *bare {
	t.Helper()
	g, err := memory.New(bareMemory)
	if err != nil {
		t.Fatal(err)
	}
	vm, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := vm.MapMemory(g); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = vm.Close(); _ = g.Close() })
	b := &bare{t: t, vm: vm, ram: g.Regions()[0].Bytes}
	for id := range cpus {
		c, err := vm.CreateVCPU(id, cpuidModel())
		if err != nil {
			t.Fatal(err)
		}
		b.cpu = append(b.cpu, c)
	}
	b.layOut()
	return b
}

func (b *bare) put64(at int, v uint64) { binary.LittleEndian.PutUint64(b.ram[at:], v) }

// layOut writes page tables, descriptor tables and handlers.
func (b *bare) layOut() {
	b.put64(barePML4, barePML4+0x1000|7)
	b.put64(barePML4+0x1000, barePML4+0x2000|7)
	b.put64(barePML4+0x1000+8*3, 0xc0000000|0x83) // the last GiB, for the APICs
	for i := range uint64(2) {
		b.put64(barePML4+0x2000+8*int(i), barePT+i*0x1000|7)
	}
	for page := range uint64(1024) {
		b.put64(barePT+8*int(page), page<<12|7)
	}
	for i, d := range []uint64{0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cff3000000ffff, 0x00affb000000ffff,
		0x0000890000000067 | bareTSS<<16, 0, 0x00cf9b000000ffff} {
		b.put64(bareGDT+8*i, d)
	}
	b.put64(bareTSS+4, bareStack)
	b.put64(bareTSS+0x60, 0xffff<<48) // no I/O permission bitmap
	for v := range uint64(256) {
		at := bareStubs + 16*v
		dpl := uint64(0)
		if v == vectorBP || v == vectorOF || v == 0x80 {
			dpl = 3
		}
		b.put64(bareIDT+16*int(v), at&0xffff|selCode<<16|(0x8e|dpl<<5)<<40)
		copy(b.ram[at:], []byte{0xe6, byte(v), 0xf4}) // out v, al; hlt
	}
}

// code puts a program, in hexadecimal with blanks as one likes, at address at.
func (b *bare) code(at int, program string) {
	b.t.Helper()
	p, err := hex.DecodeString(strings.Join(strings.Fields(program), ""))
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.vm.mem.WriteAt(p, memory.Addr(at)); err != nil {
		b.t.Fatal(err)
	}
}

// start sets CPU 0 to run 64-bit code at rip with the privilege cpl; edit may
// change the system registers before they are set.
func (b *bare) start(cpl uint8, rip uint64, edit func(*x86.Sregs)) {
	b.t.Helper()
	v := b.cpu[0]
	s, err := v.Sregs()
	if err != nil {
		b.t.Fatal(err)
	}
	data := x86.Segment{Limit: ^uint32(0), Selector: selData, Type: 3, Present: 1, DB: 1, S: 1, G: 1}
	s.CS = x86.Segment{Limit: ^uint32(0), Selector: selCode, Type: 11, Present: 1, S: 1, L: 1, G: 1}
	if cpl == 3 {
		data.Selector, data.DPL = selUser, 3
		s.CS.Selector, s.CS.DPL = selUser64, 3
	}
	s.DS, s.ES, s.FS, s.GS, s.SS = data, data, data, data, data
	s.CR0, s.CR3, s.EFER = 0x80010033, barePML4, x86.EFERLME|x86.EFERLMA|x86.EFERSCE|x86.EFERNXE
	s.CR4 = x86.CR4PAE | x86.CR4OSFXSR | x86.CR4OSXMMEXCPT
	s.GDT, s.IDT = x86.DTable{Base: bareGDT, Limit: 0x3f}, x86.DTable{Base: bareIDT, Limit: 0xfff}
	s.TR = x86.Segment{Base: bareTSS, Limit: 0x67, Selector: selTSS, Type: 11, Present: 1}
	if edit != nil {
		edit(&s)
	}
	if err := v.SetSregs(&s); err != nil {
		b.t.Fatal(err)
	}
	b.regs(&x86.Regs{RIP: rip, RSP: bareUser, RFLAGS: x86.Flag1})
}

func (b *bare) regs(r *x86.Regs) {
	b.t.Helper()
	if err := b.cpu[0].SetRegs(r); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bare) get() x86.Regs {
	b.t.Helper()
	r, err := b.cpu[0].Regs()
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

// run runs CPU 0 to its next exit.
func (b *bare) run() x86.Exit {
	b.t.Helper()
	x, err := b.cpu[0].Run()
	if err != nil {
		b.t.Fatal(err)
	}
	return x
}

// port runs to a port write and returns its port, -1 for any other exit.
func (b *bare) port() int {
	b.t.Helper()
	x := b.run()
	if x.Reason != x86.ExitIO || !x.Write {
		return -1
	}
	return int(x.Port)
}

// frame is what a handler's stack has: the error code, if there is one, and
// the saved instruction pointer.
func (b *bare) frame(hasCode bool) (code uint32, rip uint64) {
	at := int(b.get().RSP)
	if hasCode {
		code = binary.LittleEndian.Uint32(b.ram[at:])
		at += 8
	}
	return code, binary.LittleEndian.Uint64(b.ram[at:])
}

// wantPort runs to a write to that port.
func (b *bare) wantPort(want int) {
	b.t.Helper()
	if p := b.port(); p != want {
		r := b.get()
		b.t.Fatalf("port %#x, want %#x (rip %#x)", p, want, r.RIP)
	}
}

// newDirty reads the log of dirty pages.
func newDirty(b *bare) *memory.Dirty {
	b.t.Helper()
	d := memory.NewDirty(bareMemory)
	if err := b.vm.DirtyPages(d); err != nil {
		b.t.Fatal(err)
	}
	return d
}
