package clinic

import (
	"fmt"
	"strings"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

type bitName struct {
	bit  uint64
	name string
}

var (
	cr0Bits = []bitName{{x86.CR0PE, "PE"}, {x86.CR0MP, "MP"}, {x86.CR0EM, "EM"}, {x86.CR0TS, "TS"}, {x86.CR0ET, "ET"},
		{x86.CR0NE, "NE"}, {x86.CR0WP, "WP"}, {x86.CR0AM, "AM"}, {x86.CR0NW, "NW"}, {x86.CR0CD, "CD"}, {x86.CR0PG, "PG"}}
	cr4Bits = []bitName{{x86.CR4VME, "VME"}, {x86.CR4PVI, "PVI"}, {x86.CR4TSD, "TSD"}, {x86.CR4DE, "DE"}, {x86.CR4PSE, "PSE"},
		{x86.CR4PAE, "PAE"}, {x86.CR4MCE, "MCE"}, {x86.CR4PGE, "PGE"}, {x86.CR4PCE, "PCE"}, {x86.CR4OSFXSR, "OSFXSR"},
		{x86.CR4OSXMMEXCPT, "OSXMMEXCPT"}, {x86.CR4UMIP, "UMIP"}, {x86.CR4LA57, "LA57"}, {x86.CR4FSGSBASE, "FSGSBASE"},
		{x86.CR4PCIDE, "PCIDE"}, {x86.CR4OSXSAVE, "OSXSAVE"}, {x86.CR4SMEP, "SMEP"}, {x86.CR4SMAP, "SMAP"}, {x86.CR4PKE, "PKE"}}
	eferBits = []bitName{{x86.EFERSCE, "SCE"}, {x86.EFERLME, "LME"}, {x86.EFERLMA, "LMA"}, {x86.EFERNXE, "NXE"}}
	flagBits = []bitName{{x86.FlagCF, "CF"}, {x86.FlagPF, "PF"}, {x86.FlagAF, "AF"}, {x86.FlagZF, "ZF"}, {x86.FlagSF, "SF"},
		{x86.FlagTF, "TF"}, {x86.FlagIF, "IF"}, {x86.FlagDF, "DF"}, {x86.FlagOF, "OF"}, {x86.FlagNT, "NT"}, {x86.FlagRF, "RF"},
		{x86.FlagVM, "VM"}, {x86.FlagAC, "AC"}, {x86.FlagVIF, "VIF"}, {x86.FlagVIP, "VIP"}, {x86.FlagID, "ID"}}
)

// named is a register's value with the names of its bits; bits that have none
// here are given as a number.
func named(v uint64, bits []bitName) string {
	var set []string
	rest := v
	for _, b := range bits {
		if v&b.bit != 0 {
			set = append(set, b.name)
		}
		rest &^= b.bit
	}
	if rest != 0 {
		set = append(set, fmt.Sprintf("+%#x", rest))
	}
	return fmt.Sprintf("%#x (%s)", v, strings.Join(set, " "))
}

// modeName names the operating mode (SDM vol. 1, 3.1).
func (p *patient) modeName() string {
	s := &p.Sregs
	switch {
	case s.CR0&x86.CR0PE == 0:
		return "real mode"
	case p.Regs.RFLAGS&x86.FlagVM != 0:
		return "virtual-8086 mode"
	case s.EFER&x86.EFERLMA != 0 && s.CS.L != 0:
		return "64-bit mode"
	case s.EFER&x86.EFERLMA != 0:
		return fmt.Sprintf("compatibility mode (%d-bit)", p.bits())
	}
	return fmt.Sprintf("%d-bit protected mode", p.bits())
}

func (p *patient) describeCPU() []string {
	r, s := &p.Regs, &p.Sregs
	lines := []string{
		fmt.Sprintf("%s, CPL %d, %v", p.modeName(), s.CPL(), p.paging.Mode()),
		fmt.Sprintf("rip %016x  rflags %s", r.RIP, named(r.RFLAGS&^x86.Flag1, flagBits)),
		fmt.Sprintf("rax %016x  rbx %016x  rcx %016x  rdx %016x", r.RAX, r.RBX, r.RCX, r.RDX),
		fmt.Sprintf("rsi %016x  rdi %016x  rbp %016x  rsp %016x", r.RSI, r.RDI, r.RBP, r.RSP),
		fmt.Sprintf("r8  %016x  r9  %016x  r10 %016x  r11 %016x", r.R8, r.R9, r.R10, r.R11),
		fmt.Sprintf("r12 %016x  r13 %016x  r14 %016x  r15 %016x", r.R12, r.R13, r.R14, r.R15),
		"cr0 " + named(s.CR0, cr0Bits),
		fmt.Sprintf("cr2 %#x  cr3 %#x", s.CR2, s.CR3),
		"cr4 " + named(s.CR4, cr4Bits),
		"efer " + named(s.EFER, eferBits),
		fmt.Sprintf("gdt %#x limit %#x  idt %#x limit %#x", s.GDT.Base, s.GDT.Limit, s.IDT.Base, s.IDT.Limit),
	}
	for _, g := range []struct {
		name string
		seg  *x86.Segment
	}{{"cs", &s.CS}, {"ss", &s.SS}, {"ds", &s.DS}, {"es", &s.ES}, {"fs", &s.FS}, {"gs", &s.GS}, {"tr", &s.TR}, {"ldt", &s.LDT}} {
		lines = append(lines, fmt.Sprintf("%-3s %s", g.name, segmentText(g.seg)))
	}
	return lines
}

func segmentText(g *x86.Segment) string {
	if g.Unusable != 0 {
		return fmt.Sprintf("%04x unusable", g.Selector)
	}
	var attr []string
	for _, a := range []struct {
		set  bool
		name string
	}{{g.Present != 0, "present"}, {g.S == 0, "system"}, {g.S != 0 && g.Type&8 != 0, "code"}, {g.S != 0 && g.Type&8 == 0, "data"},
		{g.L != 0, "64-bit"}, {g.L == 0 && g.DB != 0, "32-bit"}, {g.L == 0 && g.DB == 0 && g.S != 0, "16-bit"}} {
		if a.set {
			attr = append(attr, a.name)
		}
	}
	return fmt.Sprintf("%04x base %#x limit %#x type %#x dpl %d %s", g.Selector, g.Base, g.Limit, g.Type, g.DPL, strings.Join(attr, " "))
}

var exceptionNames = [32]string{0: "#DE divide error", 1: "#DB debug", 2: "NMI", 3: "#BP breakpoint", 4: "#OF overflow",
	5: "#BR bound range", 6: "#UD invalid opcode", 7: "#NM no FPU", 8: "#DF double fault", 10: "#TS invalid TSS",
	11: "#NP segment not present", 12: "#SS stack fault", 13: "#GP general protection", 14: "#PF page fault",
	16: "#MF x87 error", 17: "#AC alignment check", 18: "#MC machine check", 19: "#XM SIMD error"}

func exceptionName(v uint8) string {
	if v < 32 && exceptionNames[v] != "" {
		return exceptionNames[v]
	}
	return fmt.Sprintf("interrupt %d", v)
}
