package gdb

import (
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
)

// register is one of the target description's: its size in bytes and where it
// lies. The order of the table is the order of the g packet.
type register struct {
	name string
	bits int
	kind string // GDB's type
	get  func(*Registers, []byte)
	set  func(*Registers, []byte) // nil: cannot be set
	fx   bool                     // needs HasFX
}

type feature struct {
	name string
	regs []register
}

// features are the groups that GDB knows for x86-64 (GDB manual, G.5.x "i386
// Features"), and one of our own for what only kernels have.
var features = sync.OnceValue(func() []feature {
	return []feature{
		{"org.gnu.gdb.i386.core", coreRegisters()},
		{"org.gnu.gdb.i386.sse", sseRegisters()},
		{"org.gnu.gdb.i386.segments", []register{
			word("fs_base", func(r *Registers) *uint64 { return &r.FS.Base }),
			word("gs_base", func(r *Registers) *uint64 { return &r.GS.Base }),
		}},
		{"org.vitrine.system", systemRegisters()},
	}
})

// registers is all of them in order.
var registers = sync.OnceValue(func() (all []register) {
	for _, f := range features() {
		all = append(all, f.regs...)
	}
	return all
})

func word(name string, at func(*Registers) *uint64) register {
	return register{name: name, bits: 64, kind: "int64",
		get: func(r *Registers, p []byte) { binary.LittleEndian.PutUint64(p, *at(r)) },
		set: func(r *Registers, p []byte) { *at(r) = binary.LittleEndian.Uint64(p) }}
}

// flags is a word whose bits GDB prints by name; featureTypes has the type.
func flags(name string, at func(*Registers) *uint64) register {
	g := word(name, at)
	g.kind = "x86_" + name
	return g
}

func selector(name string, at func(*Registers) uint16) register {
	return register{name: name, bits: 32, kind: "int32",
		get: func(r *Registers, p []byte) { binary.LittleEndian.PutUint32(p, uint32(at(r))) }}
}

// inFX is a register of n bytes in the FXSAVE area, shown with the given bits.
func inFX(name string, off, n, bits int, kind string) register {
	return register{name: name, bits: bits, kind: kind, fx: true,
		get: func(r *Registers, p []byte) { clear(p); copy(p, r.FX[off:off+n]) },
		set: func(r *Registers, p []byte) { copy(r.FX[off:off+n], p[:n]) }}
}

func coreRegisters() []register {
	var regs []register
	for i, name := range strings.Fields("rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15") {
		n := [...]uint8{0, 3, 1, 2, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15}[i]
		regs = append(regs, word(name, func(r *Registers) *uint64 { return r.GPR(n) }))
	}
	regs[6].kind, regs[7].kind = "data_ptr", "data_ptr"
	rip := word("rip", func(r *Registers) *uint64 { return &r.RIP })
	rip.kind = "code_ptr"
	eflags := word("eflags", func(r *Registers) *uint64 { return &r.RFLAGS })
	eflags.bits, eflags.kind = 32, "i386_eflags"
	eflags.get = func(r *Registers, p []byte) { binary.LittleEndian.PutUint32(p, uint32(r.RFLAGS)) }
	eflags.set = func(r *Registers, p []byte) { r.RFLAGS = uint64(binary.LittleEndian.Uint32(p)) }
	regs = append(regs, rip, eflags,
		selector("cs", func(r *Registers) uint16 { return r.CS.Selector }),
		selector("ss", func(r *Registers) uint16 { return r.SS.Selector }),
		selector("ds", func(r *Registers) uint16 { return r.DS.Selector }),
		selector("es", func(r *Registers) uint16 { return r.ES.Selector }),
		selector("fs", func(r *Registers) uint16 { return r.FS.Selector }),
		selector("gs", func(r *Registers) uint16 { return r.GS.Selector }))
	for i := range 8 {
		regs = append(regs, inFX(fmt.Sprintf("st%d", i), 32+16*i, 10, 80, "i387_ext"))
	}
	return append(regs, inFX("fctrl", 0, 2, 32, "int"), inFX("fstat", 2, 2, 32, "int"), tagWord(),
		inFX("fiseg", 12, 2, 32, "int"), inFX("fioff", 8, 4, 32, "int"), inFX("foseg", 20, 2, 32, "int"),
		inFX("fooff", 16, 4, 32, "int"), inFX("fop", 6, 2, 32, "int"))
}

// tagWord is the x87 tag word, of which FXSAVE keeps one bit a register:
// whether it is in use.
func tagWord() register {
	return register{name: "ftag", bits: 32, kind: "int", fx: true,
		get: func(r *Registers, p []byte) {
			var tags uint32
			for i := range 8 {
				if r.FX[4]>>i&1 == 0 {
					tags |= 3 << (2 * i)
				}
			}
			binary.LittleEndian.PutUint32(p, tags)
		},
		set: func(r *Registers, p []byte) {
			tags := binary.LittleEndian.Uint32(p)
			r.FX[4] = 0
			for i := range 8 {
				if tags>>(2*i)&3 != 3 {
					r.FX[4] |= 1 << i
				}
			}
		}}
}

func sseRegisters() []register {
	var regs []register
	for i := range 16 {
		regs = append(regs, inFX(fmt.Sprintf("xmm%d", i), 160+16*i, 16, 128, "vec128"))
	}
	return append(regs, inFX("mxcsr", 24, 4, 32, "i386_mxcsr"))
}

func systemRegisters() []register {
	readOnly := func(name string, at func(*Registers) uint64) register {
		return register{name: name, bits: 64, kind: "int64",
			get: func(r *Registers, p []byte) { binary.LittleEndian.PutUint64(p, at(r)) }}
	}
	return []register{
		flags("cr0", func(r *Registers) *uint64 { return &r.CR0 }),
		word("cr2", func(r *Registers) *uint64 { return &r.CR2 }),
		word("cr3", func(r *Registers) *uint64 { return &r.CR3 }),
		flags("cr4", func(r *Registers) *uint64 { return &r.CR4 }),
		word("cr8", func(r *Registers) *uint64 { return &r.CR8 }),
		flags("efer", func(r *Registers) *uint64 { return &r.EFER }),
		word("gdt_base", func(r *Registers) *uint64 { return &r.GDT.Base }),
		readOnly("gdt_limit", func(r *Registers) uint64 { return uint64(r.GDT.Limit) }),
		word("idt_base", func(r *Registers) *uint64 { return &r.IDT.Base }),
		readOnly("idt_limit", func(r *Registers) uint64 { return uint64(r.IDT.Limit) }),
		readOnly("tr", func(r *Registers) uint64 { return uint64(r.TR.Selector) }),
		readOnly("tr_base", func(r *Registers) uint64 { return r.TR.Base }),
		readOnly("ldt", func(r *Registers) uint64 { return uint64(r.LDT.Selector) }),
		readOnly("cpl", func(r *Registers) uint64 { return uint64(r.CPL()) }),
	}
}

// targetXML is the target description (GDB manual, G).
var targetXML = sync.OnceValue(func() string {
	var b strings.Builder
	types := featureTypes()
	b.WriteString(`<?xml version="1.0"?><!DOCTYPE target SYSTEM "gdb-target.dtd"><target version="1.0"><architecture>i386:x86-64</architecture>`)
	for _, f := range features() {
		fmt.Fprintf(&b, "\n<feature name=%q>\n", f.name)
		b.WriteString(types[f.name])
		for _, r := range f.regs {
			group := ""
			if f.name == "org.vitrine.system" {
				group = ` group="system"`
			}
			fmt.Fprintf(&b, "<reg name=%q bitsize=\"%d\" type=%q%s/>\n", r.name, r.bits, r.kind, group)
		}
		b.WriteString("</feature>")
	}
	b.WriteString("\n</target>\n")
	return b.String()
})

// featureTypes are the types that the features' registers have; GDB's own
// descriptions define the first two features' in the same way.
func featureTypes() map[string]string {
	return map[string]string{
		"org.vitrine.system": flagsType("x86_cr0", "PE MP EM TS ET NE 6 7 8 9 10 11 12 13 14 15 WP 17 AM 19 20 21 22 23 24 25 26 27 28 NW CD PG") +
			flagsType("x86_cr4", "VME PVI TSD DE PSE PAE MCE PGE PCE OSFXSR OSXMMEXCPT UMIP LA57 VMXE SMXE 15 FSGSBASE PCIDE OSXSAVE 19 SMEP SMAP PKE CET") +
			flagsType("x86_efer", "SCE 1 2 3 4 5 6 7 LME 9 LMA NXE SVME"),
		"org.gnu.gdb.i386.core": `<flags id="i386_eflags" size="4"><field name="" start="22" end="31"/><field name="ID" start="21" end="21"/>` +
			`<field name="VIP" start="20" end="20"/><field name="VIF" start="19" end="19"/><field name="AC" start="18" end="18"/>` +
			`<field name="VM" start="17" end="17"/><field name="RF" start="16" end="16"/><field name="NT" start="14" end="14"/>` +
			`<field name="OF" start="11" end="11"/><field name="DF" start="10" end="10"/><field name="IF" start="9" end="9"/>` +
			`<field name="TF" start="8" end="8"/><field name="SF" start="7" end="7"/><field name="ZF" start="6" end="6"/>` +
			`<field name="AF" start="4" end="4"/><field name="PF" start="2" end="2"/><field name="" start="1" end="1"/>` +
			`<field name="CF" start="0" end="0"/></flags>` + "\n",
		"org.gnu.gdb.i386.sse": `<vector id="v4f" type="ieee_single" count="4"/><vector id="v2d" type="ieee_double" count="2"/>` +
			`<vector id="v16i8" type="int8" count="16"/><vector id="v8i16" type="int16" count="8"/><vector id="v4i32" type="int32" count="4"/>` +
			`<vector id="v2i64" type="int64" count="2"/><union id="vec128"><field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/>` +
			`<field name="v16_int8" type="v16i8"/><field name="v8_int16" type="v8i16"/><field name="v4_int32" type="v4i32"/>` +
			`<field name="v2_int64" type="v2i64"/><field name="uint128" type="uint128"/></union>` +
			`<flags id="i386_mxcsr" size="4"><field name="IE" start="0" end="0"/><field name="DE" start="1" end="1"/>` +
			`<field name="ZE" start="2" end="2"/><field name="OE" start="3" end="3"/><field name="UE" start="4" end="4"/>` +
			`<field name="PE" start="5" end="5"/><field name="DAZ" start="6" end="6"/><field name="IM" start="7" end="7"/>` +
			`<field name="DM" start="8" end="8"/><field name="ZM" start="9" end="9"/><field name="OM" start="10" end="10"/>` +
			`<field name="UM" start="11" end="11"/><field name="PM" start="12" end="12"/><field name="FZ" start="15" end="15"/></flags>` + "\n",
	}
}

// flagsType is a 64-bit flags type with the names of its bits from bit 0 on;
// a number stands for a bit without a name.
func flagsType(id, names string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<flags id=%q size="8">`, id)
	for i, n := range strings.Fields(names) {
		if n[0] > '9' {
			fmt.Fprintf(&b, `<field name=%q start="%d" end="%d"/>`, n, i, i)
		}
	}
	return b.String() + "</flags>\n"
}

// appendHex appends the register's value in target byte order, or x's where it
// is not known.
func (g *register) appendHex(out []byte, r *Registers) []byte {
	n := g.bits / 8
	if g.fx && !r.HasFX {
		for range 2 * n {
			out = append(out, 'x')
		}
		return out
	}
	var b [16]byte
	g.get(r, b[:n])
	return appendHex(out, b[:n])
}

func appendHex(out, p []byte) []byte {
	const digits = "0123456789abcdef"
	for _, b := range p {
		out = append(out, digits[b>>4], digits[b&15])
	}
	return out
}

// parseHex decodes hex digits; false where they are not whole bytes of them.
func parseHex(p []byte) ([]byte, bool) {
	if len(p)%2 != 0 {
		return nil, false
	}
	out := make([]byte, len(p)/2)
	for i := range out {
		hi, ok1 := hexDigit(p[2*i])
		lo, ok2 := hexDigit(p[2*i+1])
		if !ok1 || !ok2 {
			return nil, false
		}
		out[i] = hi<<4 | lo
	}
	return out, true
}
