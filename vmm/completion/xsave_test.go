//go:build linux && amd64

package completion_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/kvm"
	"github.com/vitrine-vmm/vitrine/vmm/vmtest"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// xcr0Of is every component of user state that the processor has and these
// tests use: x87, SSE, AVX, AVX-512.
func xcr0Of(cpuid []x86.CPUIDEntry) uint64 {
	for _, e := range cpuid {
		if e.Function == 0xd && e.Index == 0 {
			return uint64(e.EAX) & 0xe7
		}
	}
	return 3
}

// state is an XSAVE area in the standard format with random registers, in
// which the components of inUse are not initial.
func state(rng *rand.Rand, cpuid []x86.CPUIDEntry, inUse uint64) []byte {
	a := make([]byte, 4096)
	binary.LittleEndian.PutUint16(a, 0x37f)
	binary.LittleEndian.PutUint32(a[24:], 0x1f80)
	fill := func(from, n int) {
		for i := range n {
			a[from+i] = byte(rng.Uint32())
		}
	}
	if inUse&1 != 0 {
		a[4] = 0xff // all eight registers in use
		for i := range 8 {
			fill(32+16*i, 10)
		}
	}
	if inUse&2 != 0 {
		binary.LittleEndian.PutUint32(a[24:], 0x9fc0)
		fill(160, 256)
	}
	for _, e := range cpuid {
		if e.Function == 0xd && e.Index >= 2 && e.Index < 8 && inUse>>e.Index&1 != 0 {
			fill(int(e.EBX), int(e.EAX))
		}
	}
	binary.LittleEndian.PutUint64(a[512:], inUse)
	return a
}

func setState(t *testing.T, area []byte, cpus ...*kvm.VCPU) {
	t.Helper()
	for _, c := range cpus {
		if err := c.SetXSave(area); err != nil {
			t.Fatal(err)
		}
	}
}

func setXCR0(t *testing.T, x uint64, cpus ...*kvm.VCPU) {
	t.Helper()
	for _, c := range cpus {
		if err := c.SetXCR0(x); err != nil {
			t.Fatal(err)
		}
	}
}

var saves = []struct {
	name string
	code []byte
}{
	{"xsave", []byte{0x0f, 0xae, 0x27}},
	{"xsave64", []byte{0x48, 0x0f, 0xae, 0x27}},
	{"xsaveopt64", []byte{0x48, 0x0f, 0xae, 0x37}},
	{"xsavec64", []byte{0x48, 0x0f, 0xc7, 0x27}},
	{"xsavec64 at an unaligned address", []byte{0x48, 0x0f, 0xc7, 0x67, 0x08}},
	{"xsave64 to a read-only page", []byte{0x49, 0x0f, 0xae, 0x26}},
}

func TestXSaveAgreesWithTheProcessor(t *testing.T) {
	user, kernel := vmtest.New(t, vmtest.KVM, vmtest.User64), vmtest.New(t, vmtest.KVM, vmtest.Kernel64)
	pure := newEngine(t, user)
	xcr0 := xcr0Of(user.CPUID)
	rng := rand.New(rand.NewPCG(3, 4))
	setXCR0(t, xcr0, user.VCPU, kernel.VCPU)
	for _, c := range saves {
		for range 16 {
			// With every component in use: for one that is not, the
			// processor may say that it is.
			area := state(rng, user.CPUID, xcr0)
			r := x86.Regs{RDI: vmtest.Data, R14: vmtest.ReadOnly, RAX: rng.Uint64(), RDX: rng.Uint64()}
			if rng.IntN(3) == 0 {
				r.RAX, r.RDX = ^uint64(0), ^uint64(0)
			}
			data := make([]byte, 4096)
			for i := range 512 { // the header is zero, as a kernel's is
				data[i] = 0xa5
			}
			for _, ram := range [][]byte{user.RAM, kernel.RAM, pure.ram} {
				copy(ram[vmtest.Data:], data)
			}
			setState(t, area, user.VCPU, kernel.VCPU)
			got, err := pure.run(c.code, r, user.Entry(), user.Stack())
			if err != nil {
				t.Fatal(err)
			}
			want := user.Run(c.code, r)
			// An instruction may access any byte of its area (SDM vol. 1, 13.13):
			// processors report the first or the last of them, the engine the first.
			if want.Vector == x86.VectorPF && want.CR2-vmtest.ReadOnly < uint64(len(area)) {
				want.CR2 = vmtest.ReadOnly
			}
			compareArea(t, c.name+", the engine alone", got, want, pure.ram, user.RAM)

			got = kernel.Run(c.code, r)
			want.Code &^= x86.PFUser
			compareArea(t, c.name+", in a guest", got, want, kernel.RAM, user.RAM)
		}
	}
	t.Log(kernel.Fix.Engine.Counts())
}

// compareArea is compare without what an area leaves to the processor: the
// last x87 instruction's addresses and opcode.
func compareArea(t *testing.T, what string, got, want vmtest.End, gotRAM, wantRAM []byte) {
	t.Helper()
	for _, ram := range [][]byte{gotRAM, wantRAM} {
		clear(ram[vmtest.Data+6:][:18])
		clear(ram[vmtest.Data+30:][:2]) // MXCSR_MASK beyond what all processors have
	}
	for i := range 4096 {
		if g, w := gotRAM[vmtest.Data+i], wantRAM[vmtest.Data+i]; g != w {
			t.Fatalf("%s: byte %d of the area is %#x, want %#x (XSTATE_BV %x, XCOMP_BV %x, want %x %x)", what, i, g, w,
				gotRAM[vmtest.Data+512:][:8], gotRAM[vmtest.Data+520:][:8], wantRAM[vmtest.Data+512:][:8], wantRAM[vmtest.Data+520:][:8])
		}
	}
	compare(t, what, 0, got, want, gotRAM, wantRAM)
}

func TestXRstorAgreesWithTheProcessor(t *testing.T) {
	user, kernel := vmtest.New(t, vmtest.KVM, vmtest.User64), vmtest.New(t, vmtest.KVM, vmtest.Kernel64)
	xcr0 := xcr0Of(user.CPUID)
	rng := rand.New(rand.NewPCG(5, 6))
	setXCR0(t, xcr0, user.VCPU, kernel.VCPU)
	save, restore := []byte{0x48, 0x0f, 0xae, 0x27}, []byte{0x48, 0x0f, 0xae, 0x2f}
	compact := []byte{0x48, 0x0f, 0xc7, 0x27}
	all := ^uint64(0)
	for i := range 60 {
		// The processor itself writes the area that both then restore.
		write := save
		if i%2 == 1 {
			write = compact
		}
		setState(t, state(rng, user.CPUID, rng.Uint64()&7&xcr0), user.VCPU)
		clear(user.RAM[vmtest.Data:][:4096])
		user.Run(write, x86.Regs{RDI: vmtest.Data, RAX: all, RDX: all})
		damage(rng, user.RAM[vmtest.Data:], i)
		copy(kernel.RAM[vmtest.Data:], user.RAM[vmtest.Data:][:4096])

		setState(t, state(rng, user.CPUID, 7&xcr0), user.VCPU, kernel.VCPU)
		var before [4096]byte
		if err := user.VCPU.XSave(before[:]); err != nil {
			t.Fatal(err)
		}
		r := x86.Regs{RDI: vmtest.Data, RAX: rng.Uint64() | uint64(i%3), RDX: rng.Uint64()}
		want, got := user.Run(restore, r), kernel.Run(restore, r)
		compare(t, "xrstor64", 0, got, want, kernel.RAM, user.RAM)
		var a, b [4096]byte
		if err := user.VCPU.XSave(a[:]); err != nil {
			t.Fatal(err)
		}
		if err := kernel.VCPU.XSave(b[:]); err != nil {
			t.Fatal(err)
		}
		if want.Vector != vmtest.Finished {
			// A processor may load a part of the components before it finds
			// what is wrong, as those from Intel do with the x87 before a bad
			// MXCSR (compare SDM vol. 1, 13.12); the engine loads nothing.
			a = before
		}
		for _, area := range [][]byte{a[:], b[:]} {
			clear(area[6:24])
			clear(area[28:32])   // MXCSR_MASK is none
			clear(area[512:576]) // what is in use may be more than needs be
		}
		if !bytes.Equal(a[:], b[:]) {
			for j := range a {
				if a[j] != b[j] {
					t.Fatalf("run %d, vector %d: state differs at %d: %#x, want %#x; RAX %#x", i, got.Vector, j, b[j], a[j], r.RAX)
				}
			}
		}
	}
	t.Log(kernel.Fix.Engine.Counts())
}

// damage makes some areas such that the processor refuses them.
func damage(rng *rand.Rand, area []byte, i int) {
	switch i % 10 {
	case 5:
		area[528+rng.IntN(48)] = 1 // must be zero
	case 6:
		area[512+7] = 0x40 // a component that does not exist
	case 7:
		area[24+3] = 0x80 // a reserved bit of MXCSR
	case 8:
		area[520] ^= 1
	}
}

var vectorMoves = [][]byte{
	{0x0f, 0x10, 0x0f}, {0x0f, 0x11, 0x0f}, // movups
	{0x0f, 0x28, 0x0f}, {0x0f, 0x29, 0x4f, 0x01}, // movaps, one of them unaligned
	{0x66, 0x0f, 0x6f, 0xca}, {0xf3, 0x44, 0x0f, 0x7f, 0x0f}, {0x66, 0x0f, 0xe7, 0x0f}, // movdqa, movdqu, movntdq
	{0x0f, 0x57, 0xc0}, {0x66, 0x45, 0x0f, 0xef, 0xc0}, // xorps, pxor
	{0xc5, 0xfe, 0x6f, 0x0f}, {0xc5, 0x7e, 0x7f, 0x0f}, {0xc5, 0xfd, 0x6f, 0x4f, 0x20}, // vmovdqu ymm, vmovdqa ymm
	{0xc5, 0xf8, 0x28, 0xca}, {0xc5, 0xfd, 0xef, 0xc0}, // vmovaps xmm, vpxor ymm
	{0xc5, 0xf8, 0x77}, {0xc5, 0xfc, 0x77}, // vzeroupper, vzeroall
}

func TestVectorMovesAgreeWithTheProcessor(t *testing.T) {
	user, kernel := vmtest.New(t, vmtest.KVM, vmtest.User64), vmtest.New(t, vmtest.KVM, vmtest.Kernel64)
	xcr0 := xcr0Of(user.CPUID)
	rng := rand.New(rand.NewPCG(7, 8))
	setXCR0(t, xcr0, user.VCPU, kernel.VCPU)
	for _, code := range vectorMoves {
		r := x86.Regs{RDI: vmtest.Data}
		data := randomData(rng, &r, false)
		copy(user.RAM[vmtest.Data:], data)
		copy(kernel.RAM[vmtest.Data:], data)
		setState(t, state(rng, user.CPUID, xcr0), user.VCPU, kernel.VCPU)
		want, got := user.Run(code, r), kernel.Run(code, r)
		compare(t, fmt.Sprintf("% x", code), 0, got, want, kernel.RAM, user.RAM)
		var a, b [4096]byte
		if err := user.VCPU.XSave(a[:]); err != nil {
			t.Fatal(err)
		}
		if err := kernel.VCPU.XSave(b[:]); err != nil {
			t.Fatal(err)
		}
		clear(a[512:576])
		clear(b[512:576])
		if !bytes.Equal(a[:], b[:]) {
			t.Errorf("% x: registers differ", code)
		}
	}
	t.Log(kernel.Fix.Engine.Counts())
}
