package lab

import (
	"fmt"
	"strings"

	"github.com/vitrine-vmm/vitrine/vmm/paging"
)

// Lab 11: the first access to wreckWindow faults, and the handler maps it to
// wreckPage.
const (
	wreckWindow = 0x4000_0000
	wreckPage   = 0x20_0000
)

func wreckCases() ([]Start, error) {
	of := func(s string) Start { return Start{Place: []Blob{{wreckPage, []byte(s)}}} }
	return []Start{of("ok"), of("VM")}, nil
}

func checkWreck(r *Result) []string {
	if strings.Contains(r.Output, "#PF\n#PF\n") {
		return []string{fmt.Sprintf("the access faults again and again: when the handler returns, %#x must be mapped", wreckWindow)}
	}
	if !r.Halted {
		return nil // r.Why has the clinic's diagnosis
	}
	broken := r.said("#PF\n" + string(r.Start.Place[0].Data) + "\n")
	if r.Sregs.CR2 != wreckWindow {
		broken = append(broken, fmt.Sprintf("CR2 must be %#x, the address of the one page fault, and is %#x: the memory is to be mapped when it is wanted, not before", wreckWindow, r.Sregs.CR2))
	}
	cpu := paging.Of(&r.Regs, &r.Sregs)
	if w := cpu.Walk(r.Mem, wreckWindow, paging.Read); w.Cause != paging.Mapped || w.GPA != wreckPage {
		broken = append(broken, fmt.Sprintf("linear %#x must be physical %#x at the end; the page walk says\n%s", wreckWindow, wreckPage, w.String()))
	}
	return broken
}
