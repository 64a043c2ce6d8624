package vmm

import (
	"math/bits"
	"slices"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// CPUID leaves whose contents depend on the CPU's place in the machine (SDM
// vol. 2, CPUID; AMD APM vol. 3, appendix E).
const (
	leafFeatures       = 0x1
	leafCache          = 0x4
	leafTopology       = 0xb
	leafXSave          = 0xd
	leafTopologyV2     = 0x1f
	leafHypervisor     = 0x40000000
	leafKVMFeatures    = 0x40000001
	leafAMDSize        = 0x80000008
	leafAMDCache       = 0x8000001d
	leafAMDTopology    = 0x8000001e
	ecxHypervisor      = 1 << 31 // leaf 1
	ecxTSCDeadline     = 1 << 24 // leaf 1
	edxHTT             = 1 << 28 // leaf 1
	topologyLevelSMT   = 1
	topologyLevelCores = 2
)

// cpuidFor is the CPUID table of the CPU with APIC id id in a machine of n
// CPUs: what the accelerator supports, with the topology of one package of n
// cores with one thread each.
func cpuidFor(supported []x86.CPUIDEntry, id, n int) []x86.CPUIDEntry {
	table := slices.Clone(supported)
	table = slices.DeleteFunc(table, func(e x86.CPUIDEntry) bool {
		return e.Function == leafTopology || e.Function == leafTopologyV2
	})
	coreBits := uint32(bits.Len(uint(n - 1)))
	for i := range table {
		placeCPU(&table[i], uint32(id), uint32(n), coreBits)
	}
	for _, leaf := range []uint32{leafTopology, leafTopologyV2} {
		if leaf <= maxLeaf(table) {
			table = append(table, topologyLeaves(leaf, uint32(id), uint32(n), coreBits)...)
		}
	}
	return table
}

// hypercalls are the features of KVM (Linux Documentation/virt/kvm/x86/cpuid.rst)
// that a guest uses by VMCALL: PV_UNHALT, PV_SEND_IPI, PV_SCHED_YIELD and
// HC_MAP_GPA_RANGE. KVM that emulates guest kernels never returns from one.
const hypercalls = 1<<7 | 1<<11 | 1<<13 | 1<<16

// withoutHypercalls takes them from a CPUID table.
func withoutHypercalls(table []x86.CPUIDEntry) {
	for i := range table {
		if table[i].Function == leafKVMFeatures {
			table[i].EAX &^= hypercalls
		}
	}
}

func maxLeaf(table []x86.CPUIDEntry) uint32 {
	for _, e := range table {
		if e.Function == 0 {
			return e.EAX
		}
	}
	return 0
}

func placeCPU(e *x86.CPUIDEntry, id, n, coreBits uint32) {
	switch e.Function {
	case leafFeatures:
		e.EBX = e.EBX&0x0000_ffff | n<<16 | id<<24
		e.ECX |= ecxHypervisor
		e.EDX &^= edxHTT
		if n > 1 {
			e.EDX |= edxHTT
		}
	case leafCache:
		// Bits 31-26: cores in the package less one; 25-14: threads that
		// share this cache less one: L1 and L2 are each core's own.
		level := e.EAX >> 5 & 7
		if e.EAX&0x1f == 0 {
			return
		}
		e.EAX = e.EAX&0x3fff | (1<<coreBits-1)<<26
		if level >= 3 {
			e.EAX |= (n - 1) << 14
		}
	case leafAMDSize:
		e.ECX = e.ECX&^0xf0ff | (n - 1) | coreBits<<12
	case leafAMDCache:
		e.EAX &= 0x3fff
		if e.EAX>>5&7 >= 3 {
			e.EAX |= (n - 1) << 14
		}
	case leafAMDTopology:
		e.EAX = id
		e.EBX = id & 0xff // one thread a core
		e.ECX = 0         // one node
	}
}

// topologyLeaves are the levels of leaf 0xB or 0x1F: SMT, then cores, then the
// end of the list (SDM vol. 2, CPUID, "Extended Topology Enumeration Leaf").
func topologyLeaves(leaf, id, n, coreBits uint32) []x86.CPUIDEntry {
	level := func(index, shift, count, kind uint32) x86.CPUIDEntry {
		return x86.CPUIDEntry{Function: leaf, Index: index, Flags: x86.CPUIDSignificantIndex,
			EAX: shift, EBX: count, ECX: index | kind<<8, EDX: id}
	}
	return []x86.CPUIDEntry{
		level(0, 0, 1, topologyLevelSMT),
		level(1, coreBits, n, topologyLevelCores),
		level(2, 0, 0, 0),
	}
}
