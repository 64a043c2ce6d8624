package vmm

import (
	"fmt"
	"log/slog"
	"sort"
	"strings"

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
	{7, 0, ebx, 0, map[int]string{0: "fsgsbase", 3: "bmi1", 5: "avx2", 7: "smep", 8: "bmi2", 9: "erms", 10: "invpcid", 16: "avx512f",
		17: "avx512dq", 18: "rdseed", 19: "adx", 20: "smap", 21: "avx512ifma", 23: "clflushopt", 24: "clwb", 28: "avx512cd", 29: "sha", 30: "avx512bw", 31: "avx512vl"}},
	{7, 0, ecx, 1 << 4, map[int]string{1: "avx512vbmi", 2: "umip", 3: "pku", 6: "avx512vbmi2", 8: "gfni", 9: "vaes", 10: "vpclmulqdq",
		11: "avx512vnni", 12: "avx512bitalg", 14: "avx512vpopcntdq", 16: "la57", 22: "rdpid"}},
	{7, 0, edx, 0, map[int]string{4: "fsrm", 22: "amx-bf16", 23: "avx512fp16", 24: "amx-tile", 25: "amx-int8"}},
	{7, 1, eax, 0, map[int]string{4: "avx-vnni", 5: "avx512bf16"}},
	{0xd, 0, eax, 0, nil},
	{0xd, 1, eax, 0, map[int]string{0: "xsaveopt", 1: "xsavec", 3: "xsaves"}},
	{0x80000001, 0, ecx, 1 << 1, map[int]string{0: "lahf", 5: "lzcnt", 8: "prefetchw"}},
	{0x80000001, 0, edx, 0, map[int]string{11: "syscall", 20: "nx", 26: "1gb-pages", 27: "rdtscp", 29: "long-mode"}},
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
	if missing == nil {
		return nil
	}
	sort.Strings(missing)
	return &FeatureError{missing}
}

func find(table []x86.CPUIDEntry, leaf, index uint32) x86.CPUIDEntry {
	for _, e := range table {
		if e.Function == leaf && (e.Flags&x86.CPUIDSignificantIndex == 0 || e.Index == index) {
			return e
		}
	}
	return x86.CPUIDEntry{}
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
