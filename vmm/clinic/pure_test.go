package clinic_test

import (
	"strings"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/clinic"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

func newState(t testing.TB) clinic.State {
	mem, err := memory.New(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mem.Close() })
	s := clinic.State{Mem: mem, Regs: x86.Regs{RIP: 0x1000, RSP: 0x8000, RFLAGS: x86.Flag1}}
	data := x86.Segment{Limit: ^uint32(0), Selector: 0x10, Type: 3, Present: 1, S: 1, DB: 1, G: 1}
	s.Sregs = x86.Sregs{CR0: x86.CR0PE | x86.CR0ET, DS: data, ES: data, FS: data, GS: data, SS: data,
		CS: x86.Segment{Limit: ^uint32(0), Selector: 8, Type: 11, Present: 1, S: 1, DB: 1, G: 1},
		TR: x86.Segment{Limit: 0x67, Type: 11, Present: 1}}
	return s
}

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("no %q in\n%s", p, text)
		}
	}
}

func TestEntryFailure(t *testing.T) {
	if r := clinic.EntryFailure(newState(t), 0x80000021).String(); !strings.Contains(r, "nothing in the registers") {
		t.Errorf("a valid state is accused:\n%s", r)
	}
	for text, change := range map[string]func(*clinic.State){
		"CR0.PG is set without CR0.PE":            func(s *clinic.State) { s.Sregs.CR0 = x86.CR0PG },
		"EFER.LMA is not what":                    func(s *clinic.State) { s.Sregs.EFER = x86.EFERLMA },
		"IA-32e mode without CR4.PAE":             func(s *clinic.State) { s.Sregs.CR0 |= x86.CR0PG; s.Sregs.EFER = x86.EFERLMA | x86.EFERLME },
		"bit 1 of RFLAGS is clear":                func(s *clinic.State) { s.Regs.RFLAGS = 0 },
		"RIP has more than 32 bits":               func(s *clinic.State) { s.Regs.RIP = 1 << 32 },
		"the RPLs of CS (0x8) and SS (0x13)":      func(s *clinic.State) { s.Sregs.SS.Selector = 0x13 },
		"TR has type 9, which is no busy":         func(s *clinic.State) { s.Sregs.TR.Type = 9 },
		"DS counts its limit in bytes":            func(s *clinic.State) { s.Sregs.DS.G = 0 },
		"CR0.NW is set without CR0.CD":            func(s *clinic.State) { s.Sregs.CR0 |= x86.CR0NW },
		"is not its selector 0x8 times 16":        func(s *clinic.State) { s.Sregs.CR0 = 0 },
		"CS is not a code segment":                func(s *clinic.State) { s.Sregs.CS.Type = 5 },
		"reserved bits of EFER are set":           func(s *clinic.State) { s.Sregs.EFER = 2 },
		"FS counts its limit in pages, but 0x100": func(s *clinic.State) { s.Sregs.FS.Limit = 0x100 },
	} {
		s := newState(t)
		change(&s)
		contains(t, clinic.EntryFailure(s, 7).String(), "hardware reason 0x7", text)
	}
}

func TestInstruction(t *testing.T) {
	s := newState(t)
	code := []byte{0xc5, 0xf8, 0x58, 0xc1} // vaddps
	if err := s.Mem.WriteAt(code, 0x1000); err != nil {
		t.Fatal(err)
	}
	contains(t, clinic.Instruction(s, nil).String(), "c5 f8 58 c1", "32-bit protected mode at CPL 0", "VEX-coded")
	contains(t, clinic.Instruction(s, []byte{0x0f, 0x58, 0xc1}).String(), "addps xmm0, xmm1")
	s.Regs.RIP = 0xd000_0000
	contains(t, clinic.Instruction(s, nil).String(), "(not readable)")
}

func TestInternalErrors(t *testing.T) {
	s := newState(t)
	contains(t, clinic.InternalError(s, &x86.Exit{SubError: 2}).String(), "two exceptions at the same time")
	contains(t, clinic.InternalError(s, &x86.Exit{SubError: 3, Internal: []uint64{0x8000_030e, 0x31}}).String(),
		"reason 0x31", "#PF page fault cannot be delivered")
	contains(t, clinic.InternalError(s, &x86.Exit{SubError: 4, Internal: []uint64{0x77}}).String(), "0x77")
	contains(t, clinic.InternalError(s, &x86.Exit{SubError: 99}).String(), "internal error 99")
}

func TestCodeAroundRIPAndEvents(t *testing.T) {
	s := newState(t)
	// Two instructions before RIP, RIP at the third.
	if err := s.Mem.WriteAt([]byte{0xb8, 1, 0, 0, 0, 0x89, 0xc3, 0xf4}, 0x1000-7); err != nil {
		t.Fatal(err)
	}
	s.Symbol = func(a uint64) string {
		if a >= 0x1000 {
			return "halt"
		}
		return ""
	}
	for range 30 {
		s.Events = append(s.Events, "an event")
	}
	s.Events = append(s.Events, "the last")
	text := clinic.TripleFault(s).String()
	contains(t, text, "mov ebx, eax", "→ 0x1000: f4", "hlt  <halt>", "the last")
	if n := strings.Count(text, "an event"); n != 19 {
		t.Errorf("%d older events", n)
	}
}

// FuzzTripleFault examines random states over random memory.
func FuzzTripleFault(f *testing.F) {
	f.Add([]byte{0x0f, 0x0b, 0x8e}, uint64(0x1000), uint64(0x1000), uint64(x86.CR4PAE), uint64(0xd01), uint8(0))
	f.Add([]byte{0x67, 0x10, 0, 0, 0, 0, 0, 0}, ^uint64(0), uint64(0x2000), uint64(x86.CR4PAE|x86.CR4LA57), uint64(0xd00), uint8(0x13))
	f.Add([]byte{0xc4, 0x62, 0x48, 0xff, 0xe0, 0xee}, uint64(0xfff), uint64(0), uint64(0), uint64(0), uint8(0x3f))
	state := newState(f)
	ram := state.Mem.Regions()[0].Bytes
	f.Fuzz(func(t *testing.T, fill []byte, rip, cr3, cr4, efer uint64, mode uint8) {
		if len(fill) == 0 {
			return
		}
		for i := range 0x6000 {
			ram[i] = fill[i%len(fill)]
		}
		s := state
		s.Regs.RIP, s.Regs.RSP, s.Regs.RAX = rip, rip+cr3, cr3
		s.Sregs.CR2, s.Sregs.CR3, s.Sregs.CR4, s.Sregs.EFER = rip<<1, cr3, cr4, efer
		s.Sregs.CR0 = uint64(mode&1) | uint64(mode>>1&1)<<31
		s.Sregs.CS.L, s.Sregs.CS.DB, s.Sregs.SS.DPL = mode>>2&1, mode>>3&1, mode>>4&3
		s.Sregs.IDT, s.Sregs.GDT = x86.DTable{Base: rip & 0x7fff, Limit: uint16(cr3)}, x86.DTable{Base: cr3 & 0x7fff, Limit: uint16(rip)}
		s.Sregs.TR.Base = rip
		_ = clinic.TripleFault(s).String()
		_ = clinic.EntryFailure(s, cr3).String()
		_ = clinic.InternalError(s, &x86.Exit{SubError: 3, Internal: []uint64{rip}}).String()
		_ = clinic.Instruction(s, fill).String()
	})
}
