package lab

import (
	"fmt"
	"strings"

	"github.com/vitrine-vmm/vitrine/vmm/trace"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// maxBroken is how many bytes of the wrong CPUs are told of.
const maxBroken = 3

// cpusStart is a program of lab 7 on n CPUs.
func cpusStart(n int) Start { return Start{BX: uint64(n), CPUs: n, Flat: true} }

func checkCPUs(r *Result) []string {
	var want strings.Builder
	for id := range r.Start.CPUs {
		fmt.Fprint(&want, id)
	}
	broken := r.said(want.String() + "\n")
	for i := range r.Others {
		page := r.Others[i].Sregs.CS.Base >> 12
		if len(broken) > 0 && page == loadAddr>>12 {
			return append(broken, fmt.Sprintf("CPU %d was started at page %#x, where CPU 0's own code is: the vector of the start-up IPI is the page that a CPU begins at", i+1, page))
		}
	}
	broken = append(broken, r.speakers()...)
	for i := range r.Others {
		if s := r.Others[i].unstarted(i + 1); s != "" {
			return append(broken, s)
		}
	}
	if !r.Halted && r.Output == want.String() {
		broken = append(broken, "CPU 0 still waits: the last CPU must leave word in memory that it has spoken")
	}
	return broken
}

// unstarted says what a CPU still waits for that has not run.
func (c *CPU) unstarted(id int) string {
	switch c.State {
	case x86.MPUninitialized:
		return fmt.Sprintf("CPU %d has not been started: it waits for INIT, then for the start-up IPI", id)
	case x86.MPInitReceived:
		return fmt.Sprintf("CPU %d has not been started: it waits for the start-up IPI (ICR: 0x4600 + the page of its code)", id)
	}
	return ""
}

// speakers compares who has sent what: each CPU its digit, CPU 0 the newline
// too.
func (r *Result) speakers() (broken []string) {
	for i := range r.Events {
		e := &r.Events[i]
		if e.Kind != trace.KindIO || !e.Write || e.Addr != com1 {
			continue
		}
		b := byte(e.Value)
		want := int(b) - '0'
		if b == '\n' {
			want = 0
		}
		switch {
		case want == int(e.CPU):
		case want >= 0 && want < r.Start.CPUs:
			broken = append(broken, fmt.Sprintf("%q must be sent by CPU %d, and CPU %d sent it", string(rune(b)), want, e.CPU))
		case e.CPU != 0:
			broken = append(broken, fmt.Sprintf("CPU %d must send its number, and sent the byte %#x; a CPU begins in real mode: its code must be 16-bit (.code16), and DS is 0", e.CPU, b))
		}
		if len(broken) == maxBroken {
			return broken
		}
	}
	return broken
}
