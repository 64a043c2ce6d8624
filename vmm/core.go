package vmm

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/vitrine-vmm/vitrine/vmm/clinic"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// WriteCore writes the machine's memory and CPUs to w, which must be empty, as
// an ELF core. The machine must be paused.
func (m *Machine) WriteCore(w io.WriteSeeker) error {
	cpus := make([]clinic.CoreCPU, len(m.cpus))
	for i := range cpus {
		err := m.OnCPU(i, func(v VCPU) (err error) {
			cpus[i], err = coreCPU(v)
			return err
		})
		if err != nil {
			return fmt.Errorf("core: vcpu %d: %w", i, err)
		}
	}
	return clinic.WriteCore(w, m.mem, cpus)
}

func coreCPU(v VCPU) (c clinic.CoreCPU, err error) {
	if c.Regs, err = v.Regs(); err != nil {
		return c, err
	}
	if c.Sregs, err = v.Sregs(); err != nil {
		return c, err
	}
	if m, err := v.MSRs(x86.MSRKernelGSBase); err == nil {
		c.KernelGSBase = m[0].Data
	}
	return c, nil
}

// crashCore writes the core that the configuration asks for when a CPU gives
// up, with the registers of that CPU, and returns a sentence about it.
func (c *vcpu) crashCore() string {
	path := c.m.cfg.CoreFile
	if path == "" {
		return ""
	}
	cpu, err := coreCPU(c.cpu)
	if err == nil {
		err = writeCoreFile(path, func(f *os.File) error { return clinic.WriteCore(f, c.m.mem, []clinic.CoreCPU{cpu}) })
	}
	if err != nil {
		return fmt.Sprintf("\nno core was written: %v", err)
	}
	return fmt.Sprintf("\na core is in %s: gdb KERNEL %s", path, path)
}

// writeCoreFile creates the file, readable by its owner alone: a guest's memory
// holds the guest's secrets.
func writeCoreFile(path string, write func(*os.File) error) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}
