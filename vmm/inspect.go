package vmm

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/vitrine-vmm/vitrine/vmm/clinic"
	"github.com/vitrine-vmm/vitrine/vmm/paging"
)

// View is what there is to see of something, for people and for programs.
type View struct {
	Text string `json:"text"`
	Data any    `json:"data"`
}

// InspectQuery says what of a view is wanted.
type InspectQuery struct {
	CPU    int    // whose registers or page tables
	Addr   uint64 // of pagetable, disasm, memory
	HasA   bool   // Addr was given
	Length int    // of disasm (instructions) and memory (bytes); 0: a screenful
	Name   string // of queues: the device; "" is all
}

// inspector makes a view while the machine stands still.
type inspector func(m *Machine, q *InspectQuery) (View, error)

var inspectors = map[string]inspector{
	"cpu": inspectCPU, "memory": inspectMemory, "pagetable": inspectPages, "queues": inspectQueues, "pci": inspectPCI,
	"acpi": inspectACPI, "irq": inspectIRQ, "cpuid": inspectCPUID, "disasm": inspectCode,
}

// Inspections are the names of the views.
func Inspections() []string {
	return []string{"cpu", "memory", "pagetable", "queues", "pci", "acpi", "irq", "cpuid", "disasm"}
}

// Inspect looks into the machine, which is paused for the moment of reading.
func (m *Machine) Inspect(ctx context.Context, what string, q InspectQuery) (v View, err error) {
	f, ok := inspectors[what]
	switch {
	case !ok:
		return v, fmt.Errorf("inspect %s: there is %s", what, strings.Join(Inspections(), ", "))
	case q.CPU < 0 || q.CPU >= len(m.cpus):
		return v, fmt.Errorf("no vcpu %d: the machine has %d", q.CPU, len(m.cpus))
	case m.gate.state() == gateStop:
		return v, errStopped
	}
	err = m.standingCPUs(ctx, func() error {
		v, err = f(m, &q)
		return err
	})
	return v, err
}

// patient is the CPU as the fault clinic sees it.
func (m *Machine) patient(cpu int) (s clinic.State, err error) {
	s.Mem = m.mem
	err = m.OnCPU(cpu, func(c VCPU) (err error) {
		if s.Regs, err = c.Regs(); err == nil {
			s.Sregs, err = c.Sregs()
		}
		return err
	})
	return s, err
}

func inspectCPU(m *Machine, q *InspectQuery) (View, error) {
	s, err := m.patient(q.CPU)
	if err != nil {
		return View{}, err
	}
	lines := clinic.DescribeCPU(s)
	text := fmt.Sprintf("vcpu %d: %s\n", q.CPU, strings.Join(lines, "\n  "))
	text += "code:\n" + codeText(clinic.Disassemble(&s, 2, 4))
	return View{text, map[string]any{"regs": s.Regs, "sregs": s.Sregs, "lines": lines}}, nil
}

func codeText(lines []clinic.Line) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString("  " + l.String() + "\n")
	}
	return b.String()
}

var errNoAddress = errors.New("which address?")

func inspectPages(m *Machine, q *InspectQuery) (View, error) {
	if !q.HasA {
		return View{}, errNoAddress
	}
	s, err := m.patient(q.CPU)
	if err != nil {
		return View{}, err
	}
	pc := paging.Of(&s.Regs, &s.Sregs)
	w := pc.Walk(m.mem, q.Addr, paging.Read)
	text := w.String() + "\n"
	if w.PageSize != 0 {
		text += fmt.Sprintf("  rights: user %v, writable %v, executable %v\n", w.User, w.Writable, w.Executable)
	}
	return View{text, w}, nil
}

func inspectCode(m *Machine, q *InspectQuery) (View, error) {
	s, err := m.patient(q.CPU)
	if err != nil {
		return View{}, err
	}
	before := 4
	if q.HasA {
		before = 0
		s.Regs.RIP = q.Addr
	}
	n := q.Length
	if n <= 0 {
		n = 16
	}
	lines := clinic.Disassemble(&s, before, min(n, 4096))
	return View{codeText(lines), lines}, nil
}
