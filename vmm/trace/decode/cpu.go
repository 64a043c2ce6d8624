package decode

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/vitrine-vmm/vitrine/vmm/trace"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// cpuLine is what a CPU did beside accesses, or what came from outside.
func cpuLine(l *Line, it *trace.Item) {
	switch it.Kind {
	case trace.KindExit:
		l.What = x86.ExitReason(it.Addr).String()
		l.Text = "EXIT " + l.What
		if it.Value != 0 {
			l.Text += fmt.Sprintf(" %#x", it.Value)
		}
	case trace.KindComplete, trace.KindUnknown:
		code := instruction(it)
		if inst, ok := decodeOne(code, 64); ok && it.Kind == trace.KindUnknown {
			code = code[:inst.Len] // what came with it is the next instruction's
		}
		l.What, l.Data = disassemble(code, it.RIP), code
		verb := "completed"
		if it.Kind == trace.KindUnknown {
			verb = "the software CPU does not have"
		}
		l.Text = fmt.Sprintf("%s %s (%s)", verb, l.What, bytesText(code))
		l.why = l.Kind
	case trace.KindReadMSR:
		l.What = MSRName(uint32(it.Addr))
		l.Text = fmt.Sprintf("RDMSR %s → %#x", l.What, it.Value)
	case trace.KindWriteMSR:
		l.What = MSRName(uint32(it.Addr))
		l.Text = fmt.Sprintf("WRMSR %s ← %#x", l.What, it.Value)
	case trace.KindCPUID:
		cpuidLine(l, it)
	case trace.KindVector:
		vectorLine(l, it)
	case trace.KindHalt:
		l.Text = "HLT: waits for an interrupt"
	case trace.KindInput:
		l.RIP, l.Device = 0, "COM1"
		l.Text = fmt.Sprintf("COM1 received %s", quoted(it.Data, uint32(it.Value)))
	case trace.KindMark:
		l.Text = fmt.Sprintf("mark %#x", it.Value)
	default:
		l.Text = fmt.Sprintf("%s %#x %#x", l.Kind, it.Addr, it.Value)
	}
}

// instruction is the bytes of an instruction that an event has.
func instruction(it *trace.Item) []byte {
	b := binary.LittleEndian.AppendUint64(nil, it.Value)
	b = binary.LittleEndian.AppendUint64(b, it.Aux)
	return b[:min(int(it.Size), len(b))]
}

// disassemble is the first instruction of code, of 64-bit code as far as the
// event tells.
func disassemble(code []byte, pc uint64) string {
	return assembly(code, 64, pc, func(uint64) string { return "" })
}

// newer names the instructions that the disassembler is too old for and that
// kernels use.
func newer(code []byte) string {
	wide := ""
	if len(code) > 0 && code[0]&0xf8 == 0x48 {
		wide, code = "64", code[1:]
	}
	if len(code) < 3 || code[0] != 0x0f {
		return "an instruction"
	}
	op := [2]byte{code[1], code[2] >> 3 & 7}
	switch {
	case code[1] == 0x01 && code[2] == 0xca:
		return "clac"
	case code[1] == 0x01 && code[2] == 0xcb:
		return "stac"
	case code[2] >= 0xc0:
	case op == [2]byte{0xae, 4}:
		return "xsave" + wide
	case op == [2]byte{0xae, 5}:
		return "xrstor" + wide
	case op == [2]byte{0xae, 6}:
		return "xsaveopt" + wide
	case op == [2]byte{0xc7, 4}:
		return "xsavec" + wide
	}
	return "an instruction"
}

func cpuidLine(l *Line, it *trace.Item) {
	leaf, sub := uint32(it.Addr), uint32(it.Addr>>32)
	l.What = fmt.Sprintf("leaf %#x", leaf)
	if name := LeafName(leaf); name != "" {
		l.Meaning = name
	}
	name := fmt.Sprintf("%#x", leaf)
	if hasSubleaves[leaf] {
		name = fmt.Sprintf("%#x.%d", leaf, sub)
	}
	l.Text = fmt.Sprintf("CPUID %s → eax=%#x ebx=%#x ecx=%#x edx=%#x", name,
		uint32(it.Value), uint32(it.Value>>32), uint32(it.Aux), uint32(it.Aux>>32))
	if l.Meaning != "" {
		l.Text += " (" + l.Meaning + ")"
	}
}

// hasSubleaves are the leaves for which ECX matters (SDM vol. 2, CPUID).
var hasSubleaves = map[uint32]bool{4: true, 7: true, 0xb: true, 0xd: true, 0xf: true, 0x10: true, 0x12: true, 0x14: true, 0x17: true, 0x18: true, 0x1f: true}

// LeafName says what a CPUID leaf is about (SDM vol. 2, CPUID; KVM's leaves:
// Documentation/virt/kvm/x86/cpuid.rst).
func LeafName(leaf uint32) string {
	return map[uint32]string{0: "vendor", 1: "family, model, features", 2: "caches, TLBs", 4: "caches", 5: "MONITOR", 6: "power", 7: "more features",
		0xa: "performance counters", 0xb: "topology", 0xd: "XSAVE", 0x15: "TSC clock", 0x16: "frequencies", 0x40000000: "hypervisor's vendor",
		0x40000001: "KVM's features", 0x80000000: "extended leaves", 0x80000001: "extended features", 0x80000002: "brand", 0x80000003: "brand",
		0x80000004: "brand", 0x80000006: "caches", 0x80000007: "invariant TSC", 0x80000008: "address sizes"}[leaf]
}

var exceptionNames = [32]string{0: "#DE divide error", 1: "#DB debug", 2: "NMI", 3: "#BP breakpoint", 4: "#OF overflow",
	5: "#BR bound range", 6: "#UD invalid opcode", 7: "#NM no FPU", 8: "#DF double fault", 10: "#TS invalid TSS",
	11: "#NP segment not present", 12: "#SS stack fault", 13: "#GP general protection", 14: "#PF page fault",
	16: "#MF x87 error", 17: "#AC alignment check", 18: "#MC machine check", 19: "#XM SIMD error"}

func vectorLine(l *Line, it *trace.Item) {
	switch {
	case it.Aux&trace.VectorExternal != 0:
		l.What = fmt.Sprintf("interrupt %#x", it.Addr)
		l.Text = fmt.Sprintf("interrupt %#x injected", it.Addr)
		l.why = "injected"
		return
	case it.Addr < 32 && exceptionNames[it.Addr] != "":
		l.What = exceptionNames[it.Addr]
	default:
		l.What = fmt.Sprintf("vector %#x", it.Addr)
	}
	l.Text = l.What
	if it.Aux&trace.VectorSoftware != 0 {
		l.Text += " by an instruction"
	}
	if it.Aux&trace.VectorHasCode != 0 {
		l.Text += fmt.Sprintf(", error code %#x", it.Value)
		if it.Addr == x86.VectorPF {
			l.Text += " (" + pageFault(it.Value) + ")"
		}
	}
}

func pageFault(code uint64) string {
	set := []string{"not present"}
	if code&x86.PFPresent != 0 {
		set[0] = "no right"
	}
	for _, b := range []struct {
		bit  uint64
		name string
	}{{x86.PFWrite, "store"}, {x86.PFUser, "user"}, {x86.PFRsvd, "reserved bit"}, {x86.PFFetch, "fetch"}} {
		if code&b.bit != 0 {
			set = append(set, b.name)
		}
	}
	return strings.Join(set, ", ")
}

var msrNames = map[uint32]string{
	x86.MSRTSC: "TSC", x86.MSRAPICBase: "APIC_BASE", 0x3a: "FEATURE_CONTROL", 0x3b: "TSC_ADJUST", 0x48: "SPEC_CTRL", 0x49: "PRED_CMD",
	0x8b: "BIOS_SIGN_ID", 0xc0: "PMC", 0xce: "PLATFORM_INFO", 0xfe: "MTRRcap", 0x10a: "ARCH_CAPABILITIES", 0x10b: "FLUSH_CMD", 0x122: "TSX_CTRL",
	x86.MSRSysenterCS: "SYSENTER_CS", x86.MSRSysenterESP: "SYSENTER_ESP", x86.MSRSysenterEIP: "SYSENTER_EIP", 0x179: "MCG_CAP", 0x17a: "MCG_STATUS",
	x86.MSRMiscEnable: "MISC_ENABLE", x86.MSRPAT: "PAT", 0x2ff: "MTRRdefType", x86.MSRTSCDeadline: "TSC_DEADLINE", 0xda0: "XSS",
	x86.MSREFER: "EFER", x86.MSRSTAR: "STAR", x86.MSRLSTAR: "LSTAR", x86.MSRCSTAR: "CSTAR", x86.MSRSyscallMask: "SYSCALL_MASK",
	x86.MSRFSBase: "FS_BASE", x86.MSRGSBase: "GS_BASE", x86.MSRKernelGSBase: "KERNEL_GS_BASE", x86.MSRTSCAux: "TSC_AUX",
	0x11: "KVM_WALL_CLOCK", 0x12: "KVM_SYSTEM_TIME", 0x4b564d00: "KVM_WALL_CLOCK", 0x4b564d01: "KVM_SYSTEM_TIME", 0x4b564d02: "KVM_ASYNC_PF",
	0x4b564d03: "KVM_STEAL_TIME", 0x4b564d04: "KVM_PV_EOI", 0x4b564d05: "KVM_POLL_CONTROL", 0x4b564d06: "KVM_ASYNC_PF_INT", 0x4b564d07: "KVM_ASYNC_PF_ACK",
}

// MSRName names a model-specific register (SDM vol. 4; KVM's own:
// Documentation/virt/kvm/x86/msr.rst).
func MSRName(i uint32) string {
	if n := msrNames[i]; n != "" {
		return n
	}
	switch {
	case i >= 0x200 && i < 0x210:
		return fmt.Sprintf("MTRR%s%d", [...]string{"base", "mask"}[i&1], (i-0x200)/2)
	case i >= 0x800 && i < 0x840:
		return fmt.Sprintf("X2APIC %#x", (i-0x800)<<4)
	case i >= 0x400 && i < 0x480:
		return fmt.Sprintf("MC%d_%s", (i-0x400)/4, [...]string{"CTL", "STATUS", "ADDR", "MISC"}[i&3])
	}
	return fmt.Sprintf("MSR %#x", i)
}
