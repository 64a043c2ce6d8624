//go:build linux && amd64

package completion_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/completion"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/vmtest"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

const arith = x86.FlagCF | x86.FlagPF | x86.FlagAF | x86.FlagZF | x86.FlagSF | x86.FlagOF

// native lists instructions that user mode may execute: the same bytes must do
// the same there, on the processor, as in the kernel, where on some hosts they
// are completed. undefined are flags that the SDM leaves open.
var native = []struct {
	name      string
	code      []byte
	undefined uint64
}{
	{"popcnt eax, ecx", []byte{0xf3, 0x0f, 0xb8, 0xc1}, 0},
	{"popcnt rax, rcx", []byte{0xf3, 0x48, 0x0f, 0xb8, 0xc1}, 0},
	{"popcnt ax, cx", []byte{0x66, 0xf3, 0x0f, 0xb8, 0xc1}, 0},
	{"popcnt r9, [rdi]", []byte{0xf3, 0x4c, 0x0f, 0xb8, 0x0f}, 0},
	{"popcnt r12, [rdi+r8*8+0x10]", []byte{0xf3, 0x4e, 0x0f, 0xb8, 0x64, 0xc7, 0x10}, 0},
	{"popcnt eax, [rip+0x100000]", []byte{0xf3, 0x0f, 0xb8, 0x05, 0x00, 0x00, 0x10, 0x00}, 0},
	{"lock cmpxchg16b [rdi]", []byte{0xf0, 0x48, 0x0f, 0xc7, 0x0f}, 0},
	{"cmpxchg16b [rdi]", []byte{0x48, 0x0f, 0xc7, 0x0f}, 0},
	{"cmpxchg16b [rdi+1]", []byte{0x48, 0x0f, 0xc7, 0x4f, 0x01}, 0},
	{"crc32 eax, cl", []byte{0xf2, 0x0f, 0x38, 0xf0, 0xc1}, 0},
	{"crc32 eax, ch", []byte{0xf2, 0x0f, 0x38, 0xf0, 0xc5}, 0},
	{"crc32 eax, bpl", []byte{0xf2, 0x40, 0x0f, 0x38, 0xf0, 0xc5}, 0},
	{"crc32 eax, cx", []byte{0x66, 0xf2, 0x0f, 0x38, 0xf1, 0xc1}, 0},
	{"crc32 rax, rcx", []byte{0xf2, 0x48, 0x0f, 0x38, 0xf1, 0xc1}, 0},
	{"crc32 rax, [rdi]", []byte{0xf2, 0x48, 0x0f, 0x38, 0xf1, 0x07}, 0},
	{"adcx eax, ecx", []byte{0x66, 0x0f, 0x38, 0xf6, 0xc1}, 0},
	{"adcx rax, [rdi]", []byte{0x66, 0x48, 0x0f, 0x38, 0xf6, 0x07}, 0},
	{"adox eax, ecx", []byte{0xf3, 0x0f, 0x38, 0xf6, 0xc1}, 0},
	{"adox r8, rcx", []byte{0xf3, 0x4c, 0x0f, 0x38, 0xf6, 0xc1}, 0},
	{"andn eax, ebx, ecx", []byte{0xc4, 0xe2, 0x60, 0xf2, 0xc1}, x86.FlagPF | x86.FlagAF},
	{"andn r8, r9, [rdi]", []byte{0xc4, 0x62, 0xb0, 0xf2, 0x07}, x86.FlagPF | x86.FlagAF},
	{"bextr eax, ecx, ebx", []byte{0xc4, 0xe2, 0x60, 0xf7, 0xc1}, x86.FlagPF | x86.FlagAF | x86.FlagSF},
	{"bextr rax, rcx, rbx", []byte{0xc4, 0xe2, 0xe0, 0xf7, 0xc1}, x86.FlagPF | x86.FlagAF | x86.FlagSF},
	{"blsr eax, ecx", []byte{0xc4, 0xe2, 0x78, 0xf3, 0xc9}, x86.FlagPF | x86.FlagAF},
	{"blsr rax, [rdi]", []byte{0xc4, 0xe2, 0xf8, 0xf3, 0x0f}, x86.FlagPF | x86.FlagAF},
	{"blsmsk eax, ecx", []byte{0xc4, 0xe2, 0x78, 0xf3, 0xd1}, x86.FlagPF | x86.FlagAF},
	{"blsi rax, rcx", []byte{0xc4, 0xe2, 0xf8, 0xf3, 0xd9}, x86.FlagPF | x86.FlagAF},
	{"bzhi eax, ecx, ebx", []byte{0xc4, 0xe2, 0x60, 0xf5, 0xc1}, x86.FlagPF | x86.FlagAF},
	{"bzhi rax, rcx, rbx", []byte{0xc4, 0xe2, 0xe0, 0xf5, 0xc1}, x86.FlagPF | x86.FlagAF},
	{"pext rax, rcx, rbx", []byte{0xc4, 0xe2, 0xf2, 0xf5, 0xc3}, 0},
	{"pext eax, ecx, [rdi]", []byte{0xc4, 0xe2, 0x72, 0xf5, 0x07}, 0},
	{"pdep rax, rcx, rbx", []byte{0xc4, 0xe2, 0xf3, 0xf5, 0xc3}, 0},
	{"pdep eax, ecx, ebx", []byte{0xc4, 0xe2, 0x73, 0xf5, 0xc3}, 0},
	{"mulx eax, ebx, ecx", []byte{0xc4, 0xe2, 0x63, 0xf6, 0xc1}, 0},
	{"mulx rax, rbx, [rdi]", []byte{0xc4, 0xe2, 0xe3, 0xf6, 0x07}, 0},
	{"mulx rax, rax, rcx", []byte{0xc4, 0xe2, 0xfb, 0xf6, 0xc1}, 0},
	{"rorx eax, ecx, 7", []byte{0xc4, 0xe3, 0x7b, 0xf0, 0xc1, 0x07}, 0},
	{"rorx rax, [rdi], 39", []byte{0xc4, 0xe3, 0xfb, 0xf0, 0x07, 0x27}, 0},
	{"rorx rax, [rip+0x100000], 1", []byte{0xc4, 0xe3, 0xfb, 0xf0, 0x05, 0x00, 0x00, 0x10, 0x00, 0x01}, 0},
	{"shlx eax, ecx, ebx", []byte{0xc4, 0xe2, 0x61, 0xf7, 0xc1}, 0},
	{"shlx rax, rcx, rbx", []byte{0xc4, 0xe2, 0xe1, 0xf7, 0xc1}, 0},
	{"shrx eax, [rdi], ebx", []byte{0xc4, 0xe2, 0x63, 0xf7, 0x07}, 0},
	{"shrx r15, rcx, rbx", []byte{0xc4, 0x62, 0xe3, 0xf7, 0xf9}, 0},
	{"sarx eax, ecx, ebx", []byte{0xc4, 0xe2, 0x62, 0xf7, 0xc1}, 0},
	{"sarx rax, r10, r11", []byte{0xc4, 0xc2, 0xa2, 0xf7, 0xc2}, 0},
	{"tzcnt rax, rcx", []byte{0xf3, 0x48, 0x0f, 0xbc, 0xc1}, x86.FlagPF | x86.FlagAF | x86.FlagSF | x86.FlagOF},
	{"tzcnt ax, cx", []byte{0x66, 0xf3, 0x0f, 0xbc, 0xc1}, x86.FlagPF | x86.FlagAF | x86.FlagSF | x86.FlagOF},
	{"lzcnt eax, [rdi]", []byte{0xf3, 0x0f, 0xbd, 0x07}, x86.FlagPF | x86.FlagAF | x86.FlagSF | x86.FlagOF},
	{"lzcnt rax, rcx", []byte{0xf3, 0x48, 0x0f, 0xbd, 0xc1}, x86.FlagPF | x86.FlagAF | x86.FlagSF | x86.FlagOF},
	{"movdiri [rdi], rcx", []byte{0x48, 0x0f, 0x38, 0xf9, 0x0f}, 0},
	{"movdir64b rdi, [rdx]", []byte{0x66, 0x0f, 0x38, 0xf8, 0x3a}, 0},
	{"movbe ax, [rdi]", []byte{0x66, 0x0f, 0x38, 0xf0, 0x07}, 0},
	{"movbe rax, [rdi]", []byte{0x48, 0x0f, 0x38, 0xf0, 0x07}, 0},
	{"movbe [rdi], ecx", []byte{0x0f, 0x38, 0xf1, 0x0f}, 0},
	{"clwb [rdi]", []byte{0x66, 0x0f, 0xae, 0x37}, 0},
	{"clflushopt [rdi]", []byte{0x66, 0x0f, 0xae, 0x3f}, 0},
	{"fwait", []byte{0x9b}, 0},
	{"fnstcw [rdi]", []byte{0xd9, 0x3f}, 0},
	{"fnstsw ax", []byte{0xdf, 0xe0}, 0},
	{"fnstsw [rdi]", []byte{0xdd, 0x3f}, 0},
	{"fnclex", []byte{0xdb, 0xe2}, 0},
	{"stmxcsr [rdi]", []byte{0x0f, 0xae, 0x1f}, 0},
	{"popcnt at an absent page", []byte{0xf3, 0x0f, 0xb8, 0x06}, 0},
	{"cmpxchg16b of a read-only page", []byte{0x49, 0x0f, 0xc7, 0x0e}, 0},
	{"crc32 at a non-canonical address", []byte{0xf2, 0x0f, 0x38, 0xf1, 0x45, 0x00}, 0},
	{"movbe across the end of a page", []byte{0x48, 0x0f, 0x38, 0xf1, 0x8e, 0xfc, 0xff, 0xff, 0xff}, 0},
	{"popcnt [esi+0x10]", []byte{0x67, 0xf3, 0x0f, 0xb8, 0x42, 0x10}, 0},
}

// randomRegs are registers with interesting values; RDI points to data, RSI to
// an absent page, R14 to a read-only one and RBP nowhere.
func randomRegs(rng *rand.Rand) x86.Regs {
	var r x86.Regs
	for n := range uint8(16) {
		v := rng.Uint64()
		switch rng.IntN(4) {
		case 0:
			v = uint64(rng.IntN(80))
		case 1:
			v = -uint64(rng.IntN(3))
		}
		*r.GPR(n) = v
	}
	r.RDI = vmtest.Data + uint64(rng.IntN(16))*16
	r.RSI, r.R14, r.RBP = vmtest.Absent, vmtest.ReadOnly, 1<<63|0x1000
	r.R8 = uint64(rng.IntN(64))
	r.RDX = vmtest.Data + uint64(rng.IntN(256))
	r.RSP = 0
	r.RFLAGS = rng.Uint64() & arith
	return r
}

// engine executes a case by the engine alone, on registers and memory that are
// only a test's.
type engine struct {
	*completion.Engine
	mem   *memory.Guest
	ram   []byte
	sregs x86.Sregs
}

func newEngine(t *testing.T, user *vmtest.Guest) *engine {
	mem, err := memory.New(uint64(len(user.RAM)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mem.Close() })
	e := &engine{Engine: completion.New(user.VCPU, mem, user.CPUID, 4096), mem: mem, ram: mem.Regions()[0].Bytes}
	copy(e.ram, user.RAM)
	e.sregs = *user.Sregs()
	return e
}

func (e *engine) run(code []byte, r x86.Regs, entry, stack uint64) (vmtest.End, error) {
	r.RIP, r.RSP, r.RFLAGS = entry, stack, r.RFLAGS|x86.Flag1
	s := e.sregs
	result, err := e.Complete(code, &r, &s)
	end := vmtest.End{Vector: vmtest.Finished, Regs: r, CR2: s.CR2}
	if result.Raised {
		end.Vector, end.Code = int(result.Exception.Vector), result.Exception.Code
	}
	return end, err
}

// TestCompletionsAgreeWithTheProcessor has each instruction executed in user
// mode by the processor, by the engine alone, and in a guest's kernel mode.
func TestCompletionsAgreeWithTheProcessor(t *testing.T) {
	user, kernel := vmtest.New(t, vmtest.KVM, vmtest.User64), vmtest.New(t, vmtest.KVM, vmtest.Kernel64)
	pure := newEngine(t, user)
	rng := rand.New(rand.NewPCG(1, 2))
	for _, c := range native {
		for i := range 12 {
			r := randomRegs(rng)
			data := randomData(rng, &r, i%3 == 0)
			for _, ram := range [][]byte{user.RAM, kernel.RAM, pure.ram} {
				copy(ram[vmtest.Data:], data)
			}
			want := user.Run(c.code, r)
			if want.Vector == x86.VectorUD {
				t.Logf("%s: not an instruction of this processor's", c.name)
				break
			}
			got, err := pure.run(c.code, r, user.Entry(), user.Stack())
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			compare(t, c.name+", the engine alone", c.undefined, got, want, pure.ram, user.RAM)

			completed := kernel.Completions
			got = kernel.Run(c.code, r)
			if kernel.Completions == completed {
				continue // the host executes it, perhaps wrongly: not ours
			}
			want.Code &^= x86.PFUser
			compare(t, c.name+", in a guest", c.undefined, got, want, kernel.RAM, user.RAM)
			if t.Failed() {
				return
			}
		}
	}
	t.Logf("%d completions: %v", kernel.Completions, kernel.Fix.Engine.Counts())
}

// randomData is a page for RDI to point into; with match, CMPXCHG16B finds
// there what it compares with.
func randomData(rng *rand.Rand, r *x86.Regs, match bool) []byte {
	data := make([]byte, 4096)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	if match {
		off := r.RDI - vmtest.Data
		copy(data[off:], le(r.RAX))
		copy(data[off+8:], le(r.RDX))
	}
	return data
}

func compare(t *testing.T, what string, undefined uint64, got, want vmtest.End, gotRAM, wantRAM []byte) {
	t.Helper()
	if got.Vector != want.Vector || got.Code != want.Code || got.Vector == x86.VectorPF && got.CR2 != want.CR2 {
		t.Fatalf("%s: vector %d code %#x cr2 %#x, want %d %#x %#x", what,
			got.Vector, got.Code, got.CR2, want.Vector, want.Code, want.CR2)
	}
	got.Regs.RFLAGS &^= undefined
	want.Regs.RFLAGS &^= undefined
	if got.Regs != want.Regs {
		t.Fatalf("%s:\n got %+v\nwant %+v", what, got.Regs, want.Regs)
	}
	if !bytes.Equal(gotRAM[vmtest.Data:][:8192], wantRAM[vmtest.Data:][:8192]) {
		t.Fatalf("%s: memory differs", what)
	}
}

func le(v uint64) []byte {
	b := make([]byte, 8)
	for i := range b {
		b[i] = byte(v >> (8 * i))
	}
	return b
}
