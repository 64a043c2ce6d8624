package vmm

import (
	"fmt"
	"log/slog"
	"runtime"
	"sort"
	"strings"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/snapshot"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// FeatureError says which CPU features a snapshot's guest may be using that
// this host does not have.
type FeatureError struct{ Missing []string }

func (e *FeatureError) Error() string {
	return "the guest may use CPU features that this host does not have: " + strings.Join(e.Missing, " ")
}

// featureWords are the words of CPUID whose bits are features: what a guest
// that has seen one set may rely on (SDM vol. 2, CPUID; Linux
// Documentation/virt/kvm/x86/cpuid.rst).
var featureWords = []struct {
	leaf, index uint32
	word        func(*x86.CPUIDEntry) uint32
	ignore      uint32 // bits that are no features of the processor's
	names       map[int]string
}{
	{1, 0, ecx, ecxHypervisor | 1<<27, map[int]string{0: "sse3", 1: "pclmulqdq", 9: "ssse3", 12: "fma", 13: "cmpxchg16b", 17: "pcid",
		19: "sse4.1", 20: "sse4.2", 21: "x2apic", 22: "movbe", 23: "popcnt", 24: "tsc-deadline", 25: "aes", 26: "xsave", 28: "avx", 29: "f16c", 30: "rdrand"}},
	{1, 0, edx, edxHTT, nil},
	// Bits 6 and 13 of EBX are set where something is missing: the x87's last
	// data pointer, unless there was an exception, and FCS and FDS (SDM vol. 1,
	// 8.1.8). AMD's processors have them, Intel's have not, and nobody uses them.
	{7, 0, ebx, 1<<6 | 1<<13, map[int]string{0: "fsgsbase", 1: "tsc-adjust", 3: "bmi1", 4: "hle", 5: "avx2", 7: "smep", 8: "bmi2", 9: "erms", 10: "invpcid",
		11: "rtm", 16: "avx512f", 17: "avx512dq", 18: "rdseed", 19: "adx", 20: "smap", 21: "avx512ifma", 23: "clflushopt", 24: "clwb", 28: "avx512cd",
		29: "sha", 30: "avx512bw", 31: "avx512vl"}},
	{7, 0, ecx, 1 << 4, map[int]string{1: "avx512vbmi", 2: "umip", 3: "pku", 5: "waitpkg", 6: "avx512vbmi2", 7: "shstk", 8: "gfni", 9: "vaes",
		10: "vpclmulqdq", 11: "avx512vnni", 12: "avx512bitalg", 14: "avx512vpopcntdq", 16: "la57", 22: "rdpid", 25: "cldemote", 27: "movdiri", 28: "movdir64b"}},
	{7, 0, edx, 0, map[int]string{4: "fsrm", 8: "avx512vp2intersect", 10: "md-clear", 14: "serialize", 16: "tsxldtrk", 20: "ibt", 22: "amx-bf16", 23: "avx512fp16",
		24: "amx-tile", 25: "amx-int8", 26: "spec-ctrl", 27: "stibp", 28: "flush-l1d", 29: "arch-capabilities", 31: "ssbd"}},
	{7, 1, eax, 0, map[int]string{4: "avx-vnni", 5: "avx512bf16", 10: "fzrm", 11: "fsrs", 12: "fsrcs"}},
	{leafXSave, 0, eax, 0, nil},
	{leafXSave, 1, eax, 0, map[int]string{0: "xsaveopt", 1: "xsavec", 2: "xgetbv1", 3: "xsaves"}},
	{0x80000001, 0, ecx, 1 << 1, map[int]string{0: "lahf", 5: "lzcnt", 6: "sse4a", 7: "misalignsse", 8: "prefetchw"}},
	{0x80000001, 0, edx, 0, map[int]string{11: "syscall", 20: "nx", 26: "1gb-pages", 27: "rdtscp", 29: "long-mode"}},
	// Of AMD's, the words that name instructions and registers.
	{leafAMDSize, 0, ebx, 0, map[int]string{0: "clzero", 2: "xsaveerptr", 9: "wbnoinvd", 12: "amd-ibpb", 14: "amd-ibrs", 15: "amd-stibp", 24: "amd-ssbd", 25: "virt-ssbd"}},
	{leafKVMFeatures, 0, eax, 0, map[int]string{0: "kvm-clocksource", 3: "kvm-clocksource2", 4: "kvm-async-pf", 5: "kvm-steal-time",
		6: "kvm-pv-eoi", 7: "kvm-pv-unhalt", 9: "kvm-pv-tlb-flush", 11: "kvm-pv-send-ipi", 14: "kvm-async-pf-int"}},
}

func eax(e *x86.CPUIDEntry) uint32 { return e.EAX }
func ebx(e *x86.CPUIDEntry) uint32 { return e.EBX }
func ecx(e *x86.CPUIDEntry) uint32 { return e.ECX }
func edx(e *x86.CPUIDEntry) uint32 { return e.EDX }

// CheckCPUID says whether a guest that has seen the CPUID table saved can go on
// where supported is what there is; if not, with a *FeatureError.
func CheckCPUID(saved, supported []x86.CPUIDEntry) error {
	var missing []string
	for _, w := range featureWords {
		was, here := find(saved, w.leaf, w.index), find(supported, w.leaf, w.index)
		lost := w.word(&was) &^ w.word(&here) &^ w.ignore
		for bit := 0; lost != 0; bit, lost = bit+1, lost>>1 {
			if lost&1 == 0 {
				continue
			}
			name := w.names[bit]
			if name == "" {
				name = fmt.Sprintf("cpuid-%x.%x-bit%d", w.leaf, w.index, bit)
			}
			missing = append(missing, name)
		}
	}
	missing = append(missing, movedState(saved, supported)...)
	if missing == nil {
		return nil
	}
	sort.Strings(missing)
	return &FeatureError{missing}
}

// movedState names the components of the XSAVE area that lie elsewhere, or have
// another size, than the guest saw: where each is differs between processors,
// and the guest has looked once (SDM vol. 1, 13.2).
func movedState(saved, supported []x86.CPUIDEntry) (moved []string) {
	components := find(saved, leafXSave, 0)
	for n := uint32(2); n < 32; n++ {
		was, here := find(saved, leafXSave, n), find(supported, leafXSave, n)
		if components.EAX>>n&1 != 0 && was.EAX != 0 && here.EAX != 0 && (was.EAX != here.EAX || was.EBX != here.EBX) {
			moved = append(moved, fmt.Sprintf("xsave-component-%d-at-%d", n, was.EBX))
		}
	}
	return moved
}

func find(table []x86.CPUIDEntry, leaf, index uint32) x86.CPUIDEntry {
	for _, e := range table {
		if e.Function == leaf && (e.Flags&x86.CPUIDSignificantIndex == 0 || e.Index == index) {
			return e
		}
	}
	return x86.CPUIDEntry{}
}

// cpuidOf is the table for the CPUs of a machine that is restored from s, where
// its accelerator supports supported. With unseen, the host may add what s.Seen
// has beyond that; only a CPU can tell.
func cpuidOf(s *snapshot.State, supported []x86.CPUIDEntry) (table []x86.CPUIDEntry, unseen bool, err error) {
	if s.Seen != nil && CheckCPUID(s.Seen, supported) == nil {
		return s.Seen, false, nil
	}
	return s.CPUID, s.Seen != nil, CheckCPUID(s.CPUID, supported)
}

// checkSeen says whether the guest of s finds on cpu, which was given table,
// the features that it saw.
func checkSeen(s *snapshot.State, cpu VCPU, table []x86.CPUIDEntry) error {
	here, err := seenCPUID(cpu, table)
	if err != nil {
		return err
	}
	return CheckCPUID(s.Seen, here)
}

// seenCPUID is what a guest sees on cpu, which was given table.
func seenCPUID(cpu VCPU, table []x86.CPUIDEntry) ([]x86.CPUIDEntry, error) {
	if c, ok := cpu.(interface {
		CPUID() ([]x86.CPUIDEntry, error)
	}); ok {
		return c.CPUID()
	}
	return table, nil
}

// CheckHost says why this host's CPUs cannot go on with the guest of s, if so.
func CheckHost(s *snapshot.State) error {
	vm, err := openAccelerator(s.Machine.Accel, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer vm.Close()
	supported, err := vm.SupportedCPUID()
	if err != nil {
		return err
	}
	table, unseen, err := cpuidOf(s, supported)
	if err != nil || !unseen {
		return err
	}
	if err := vm.MapMemory(memory.NewEmpty()); err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cpu, err := vm.NewVCPU(0, table)
	if err != nil {
		return err
	}
	defer cpu.Close()
	return checkSeen(s, cpu, table)
}

// HostCPUID is the CPUID table that an accelerator of this host supports.
func HostCPUID(accel Accelerator) ([]x86.CPUIDEntry, error) {
	vm, err := openAccelerator(string(accel), slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	defer vm.Close()
	return vm.SupportedCPUID()
}
