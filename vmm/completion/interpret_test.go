//go:build linux && amd64

package completion_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/completion"
	"github.com/vitrine-vmm/vitrine/vmm/vmtest"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// interpreted are instructions that the package itself does not know.
var interpreted = [][]byte{
	{0x0f, 0x58, 0xc1},                         // addps xmm0, xmm1
	{0xf2, 0x0f, 0x59, 0x07},                   // mulsd xmm0, [rdi]
	{0xf2, 0x48, 0x0f, 0x2a, 0xc1},             // cvtsi2sd xmm0, rcx
	{0xf2, 0x0f, 0x11, 0x0f},                   // movsd [rdi], xmm1
	{0x66, 0x0f, 0xfe, 0xca},                   // paddd xmm1, xmm2
	{0x66, 0x48, 0x0f, 0x7e, 0xc8},             // movq rax, xmm1
	{0x66, 0x0f, 0x2e, 0xc1},                   // ucomisd xmm0, xmm1
	{0x66, 0x0f, 0x38, 0x00, 0xc1},             // pshufb xmm0, xmm1
	{0xd9, 0xe8},                               // fld1
	{0xd9, 0x07, 0xd8, 0xc8, 0xd9, 0x5f, 0x04}, // fld, fmul, fstp
	{0xdb, 0xe3, 0xd9, 0xeb, 0xdd, 0x1f},       // fninit; fldpi; fstp qword [rdi]
	{0x0f, 0x58, 0x0e},                         // addps xmm1, [rsi]: absent
}

func TestVectorArithmeticInAKernel(t *testing.T) {
	user, kernel := vmtest.New(t, vmtest.KVM, vmtest.User64), vmtest.New(t, vmtest.KVM, vmtest.Kernel64)
	rng := rand.New(rand.NewPCG(9, 10))
	setXCR0(t, 3, user.VCPU, kernel.VCPU)
	for _, code := range interpreted {
		for range 4 {
			r := randomRegs(rng)
			r.RDI &^= 0xf
			data := randomData(rng, &r, false)
			copy(user.RAM[vmtest.Data:], data)
			copy(kernel.RAM[vmtest.Data:], data)
			area := state(rng, user.CPUID, 2)
			area[24], area[25] = 0x80, 0x1f // all exceptions masked
			setState(t, area, user.VCPU, kernel.VCPU)
			want, got := user.Run(code, r), kernel.Run(code, r)
			want.Code &^= x86.PFUser
			compare(t, "interpreted", 0, got, want, kernel.RAM, user.RAM)
			var a, b [4096]byte
			if err := errors.Join(user.VCPU.XSave(a[:]), kernel.VCPU.XSave(b[:])); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(a[160:416], b[160:416]) || !bytes.Equal(a[24:28], b[24:28]) || !bytes.Equal(a[32:42], b[32:42]) {
				t.Fatalf("% x: registers differ", code)
			}
		}
	}
	t.Log(kernel.Fix.Engine.Counts())
}

// What the software CPU does not know either is refused, and nothing changes.
func TestAVXArithmeticIsRefused(t *testing.T) {
	g := vmtest.New(t, vmtest.KVM, vmtest.Kernel64)
	for _, code := range [][]byte{{0xc5, 0xf8, 0x58, 0xc1}, {0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc1}} {
		copy(g.RAM[g.Entry():], code)
		start := x86.Regs{RIP: g.Entry(), RSP: g.Stack(), RFLAGS: x86.Flag1}
		if err := errors.Join(g.CPU.SetSregs(g.Sregs()), g.CPU.SetRegs(&start)); err != nil {
			t.Fatal(err)
		}
		if _, err := g.Fix.Step(code); !errors.Is(err, completion.ErrUnknown) {
			t.Errorf("% x: %v", code, err)
		}
		if r, err := g.CPU.Regs(); err != nil || r != start {
			t.Errorf("% x: %v %+v", code, err, r)
		}
	}
}
