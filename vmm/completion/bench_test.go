//go:build linux && amd64

package completion_test

import (
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/vmtest"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// BenchmarkStep is an exit for an instruction, its completion, and the way back
// into the guest, which runs in a loop of it. Hosts that execute the
// instruction themselves have no such exits, and it is skipped there.
func BenchmarkStep(b *testing.B) {
	for _, c := range []struct {
		name string
		code []byte
	}{
		{"clac", []byte{0x0f, 0x01, 0xca}},
		{"popcnt", []byte{0xf3, 0x48, 0x0f, 0xb8, 0x07}},
		{"cmpxchg16b", []byte{0xf0, 0x48, 0x0f, 0xc7, 0x0f}},
		{"xsavec64", []byte{0x48, 0x0f, 0xc7, 0x27}},
		{"xrstor64", []byte{0x48, 0x0f, 0xae, 0x2f}},
	} {
		b.Run(c.name, func(b *testing.B) {
			g := vmtest.New(b, vmtest.KVM, vmtest.Kernel64)
			if err := g.VCPU.SetXCR0(7); err != nil {
				b.Skip(err)
			}
			clear(g.RAM[vmtest.Data:][:4096])
			if g.Run(c.code, x86.Regs{RDI: vmtest.Data, RAX: 7}); g.Completions == 0 {
				b.Skip("the host executes it")
			}
			loop := append(append([]byte(nil), c.code...), 0xeb, byte(-len(c.code)-2))
			copy(g.RAM[g.Entry():], loop)
			if err := g.CPU.SetRegs(&x86.Regs{RIP: g.Entry(), RDI: vmtest.Data, RAX: 7, RFLAGS: x86.Flag1}); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				x, err := g.CPU.Run()
				for err == nil && x.Reason == x86.ExitInterrupted {
					x, err = g.CPU.Run()
				}
				if err != nil {
					b.Fatal(err)
				}
				if _, err := g.Fix.Step(x.Instruction); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
