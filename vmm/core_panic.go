package vmm

import (
	"fmt"
	"os"

	"github.com/vitrine-vmm/vitrine/vmm/clinic"
)

// keepForCore keeps the registers of a CPU whose machine ends by a panic of the
// guest's kernel, for a core. It is called on the CPU's thread, after its last
// exit.
func (c *vcpu) keepForCore() {
	if end := c.m.gate.result(); c.m.cfg.CoreFile == "" || end == nil || end.Cause != CausePanic {
		return
	}
	if cpu, err := coreCPU(c.cpu); err == nil {
		c.atPanic = &cpu
	}
}

// panicCore writes the core of a guest whose kernel panicked, with all CPUs, and
// adds a sentence about it to end. No CPU runs any more.
func (m *Machine) panicCore(end *StopError) {
	path := m.cfg.CoreFile
	if path == "" || end.Cause != CausePanic {
		return
	}
	var cpus []clinic.CoreCPU
	for _, c := range m.cpus {
		if c.atPanic != nil {
			cpus = append(cpus, *c.atPanic)
		}
	}
	if len(cpus) == 0 {
		return
	}
	err := writeCoreFile(path, func(f *os.File) error { return clinic.WriteCore(f, m.mem, cpus) })
	if err != nil {
		end.Detail += fmt.Sprintf("\nno core was written: %v", err)
		return
	}
	end.Detail += fmt.Sprintf("\na core is in %s: gdb KERNEL %s", path, path)
}
