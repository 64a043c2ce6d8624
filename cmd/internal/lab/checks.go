package lab

import (
	"fmt"
	"strings"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/paging"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
)

const com1 = 0x3f8

// accesses counts exits to a port, and lists the ports that were written.
func (r *Result) accesses(port uint64, write bool) (n int) {
	for _, e := range r.Events {
		if e.Kind == trace.KindIO && e.Addr == port && e.Write == write {
			n++
		}
	}
	return n
}

// said compares what COM1 sent.
func (r *Result) said(want string) []string {
	if r.Output == want {
		return nil
	}
	s := fmt.Sprintf("COM1 must send %q, and sent %s", want, quote(r.Output))
	if r.Start.AX != 0 || r.Start.BX != 0 {
		s += fmt.Sprintf(" (begun with AX = %#x, BX = %#x)", r.Start.AX, r.Start.BX)
	}
	if r.Output != "" {
		return []string{s}
	}
	for _, e := range r.Events {
		if e.Kind == trace.KindIO && e.Write && e.Addr < com1 {
			return []string{s, fmt.Sprintf("bytes go to the port of a device: COM1's transmitter is port 0x3f8, and this program writes port %#x", e.Addr)}
		}
	}
	return []string{s}
}

// quote quotes what may be long.
func quote(s string) string {
	const longest = 80
	if len(s) <= longest {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf("%q and more", s[:longest])
}

func checkCountdown(r *Result) []string {
	var want strings.Builder
	for n := int(r.Start.AX); n >= 0; n-- {
		fmt.Fprintf(&want, "%d", n)
	}
	return r.said(want.String() + "\n")
}

func checkAnswer(r *Result) []string {
	const debugPort = 0x510
	broken := r.said(strings.Repeat("V", int(r.Start.BX)))
	if n := r.accesses(debugPort, false); n != 1 {
		broken = append(broken, fmt.Sprintf("port %#x must be read once, as each IN is an exit, and it was read %d times", debugPort, n))
	}
	if r.Regs.RBX != r.Start.BX {
		broken = append(broken, fmt.Sprintf("BX must be as it was, %#x, and is %#x", r.Start.BX, r.Regs.RBX))
	}
	return broken
}

func checkWindow(r *Result) []string {
	const window, page, mark = 0x40000000, 0x200000, 0x5452
	if !r.Halted {
		return nil // r.Why has the clinic's diagnosis
	}
	if !r.Sregs.LongMode() {
		return []string{fmt.Sprintf("the CPU must be in 64-bit mode: CR4.PAE, CR0.PG, EFER.LME and CS.L set; they are %d, %d, %d and %d",
			r.Sregs.CR4>>5&1, r.Sregs.CR0>>31&1, r.Sregs.EFER>>8&1, r.Sregs.CS.L)}
	}
	cpu := paging.Of(&r.Regs, &r.Sregs)
	w := cpu.Walk(r.Mem, window, paging.Read)
	var broken []string
	if w.Cause != paging.Mapped || w.GPA != page {
		broken = append(broken, fmt.Sprintf("linear %#x must be physical %#x; the page walk says\n%s", window, page, w.String()))
	}
	if v, err := r.Mem.LoadUint32(memory.Addr(page)); err != nil || v != mark {
		broken = append(broken, fmt.Sprintf("%#x must be in memory at physical %#x, and there is %#x", mark, page, v))
	}
	return append(broken, r.said("64\n")...)
}
