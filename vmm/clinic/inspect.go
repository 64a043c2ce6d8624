package clinic

// DescribeCPU is a CPU's mode, privilege level and registers, with the bits of
// those that have names, a line each.
func DescribeCPU(s State) []string { return examine(s).report.CPU }
