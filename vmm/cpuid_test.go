package vmm

import (
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// TestWithoutHypercalls: of KVM's features those that need no VMCALL stay, and no
// other leaf is touched.
func TestWithoutHypercalls(t *testing.T) {
	table := []x86.CPUIDEntry{
		{Function: 1, EAX: ^uint32(0)},
		{Function: leafHypervisor, EAX: ^uint32(0)},
		{Function: leafKVMFeatures, EAX: 1<<0 | 1<<3 | 1<<5 | 1<<6 | 1<<7 | 1<<9 | 1<<11 | 1<<13 | 1<<24, EDX: 1},
	}
	withoutHypercalls(table)
	if got, want := table[2].EAX, uint32(1<<0|1<<3|1<<5|1<<6|1<<9|1<<24); got != want || table[2].EDX != 1 {
		t.Errorf("features %#x, want %#x; hints %#x", got, want, table[2].EDX)
	}
	if table[0].EAX != ^uint32(0) || table[1].EAX != ^uint32(0) {
		t.Errorf("other leaves: %#x, %#x", table[0].EAX, table[1].EAX)
	}
}
