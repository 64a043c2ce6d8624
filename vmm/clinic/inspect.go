package clinic

import "github.com/vitrine-vmm/vitrine/vmm/x86"

// DescribeCPU is a CPU's mode, privilege level and registers, with the bits of
// those that have names, a line each.
func DescribeCPU(s State) []string { return examine(s).report.CPU }

// Mode names the mode that a CPU is in (SDM vol. 1, 3.1).
func Mode(r *x86.Regs, s *x86.Sregs) string {
	p := patient{State: State{Regs: *r, Sregs: *s}}
	return p.modeName()
}
