package completion

import (
	"encoding/binary"

	"github.com/vitrine-vmm/vitrine/vmm/paging"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// SYSCALL without hardware help.
//
// Where KVM runs guest user mode on the processor without virtualisation, a
// SYSCALL there arrives in the guest as if it had jumped to the address in
// LSTAR with its own privilege: the fetch faults, and the guest gets #PF with
// CR2 = LSTAR. RCX and R11 are as SYSCALL leaves them. The page-fault entry of
// every kernel that knows SMAP begins with CLAC, which the emulator lacks. At
// that point the page-fault frame is on top of the stack:
//
//	RSP+0   error code: user, instruction fetch
//	RSP+8   RIP = LSTAR
//	RSP+16  CS, RPL 3
//	RSP+24  RFLAGS
//	RSP+32  RSP
//	RSP+40  SS
//
// and the completion does what SYSCALL does (SDM vol. 2, SYSCALL) instead of
// CLAC, as if there had been no fault. A real fault at that address (a program
// that jumps there) looks the same but for RCX and R11; there SYSCALL is what
// the program could have executed as well.

// The exception has made CS what SYSCALL makes it, where the guest's gate and
// STAR name the same segment, as Linux's do, and SS null, with which a 64-bit
// kernel does as well. Then the system registers are not written: on busy hosts
// such a KVM sometimes goes on as if in user mode after that, and the fetch at
// LSTAR faults once more, each time it is tried. The stack is still the user's
// then, where SMAP forbids the kernel to push, and the guest gets #DF, which has
// a stack of its own. Its entry begins with CLAC too, and what the guest had is in
// the frame, now with the kernel's CS, error code 0 and the user's RSP: the guest
// is set back to LSTAR where its page tables permit the fetch.

// mostRetries is how often in a row: a real double fault there is the guest's.
const mostRetries = 100

// syscalls is what is known of the guest's SYSCALL registers. They are read
// when a system call enters at another address than the last, and again after
// the descriptor tables have moved: no kernel keeps those of the kernel before
// it, nor sets up its own after its first system call.
type syscalls struct {
	known        bool
	lstar, cstar uint64
	star, mask   uint64
	gdt, idt     uint64 // where the tables were
	retries      int    // of one system call's entry
}

func (c *syscalls) see(s *x86.Sregs) {
	if c.known && (c.gdt != s.GDT.Base || c.idt != s.IDT.Base) {
		c.known = false
	}
}

// learn reads the registers.
func (e *Engine) learnSyscalls() error {
	m, err := e.env.MSRs(x86.MSRLSTAR, x86.MSRCSTAR, x86.MSRSTAR, x86.MSRSyscallMask)
	if err != nil {
		return err
	}
	e.calls = syscalls{known: true, lstar: m[0].Data, cstar: m[1].Data, star: m[2].Data, mask: m[3].Data,
		gdt: e.s.GDT.Base, idt: e.s.IDT.Base}
	return nil
}

// syscallEntry turns a page fault that was a SYSCALL into its entry. It
// returns unknown where the CLAC is only a CLAC.
func (e *Engine) syscallEntry() verdict {
	s := e.s
	// What is cheap to check goes first: kernels execute CLAC all the time.
	if e.mode != mode64 || s.EFER&x86.EFERSCE == 0 || s.CR2>>63 == 0 {
		return unknown
	}
	frame, ok := e.faultFrame()
	if !ok {
		return unknown
	}
	if !e.calls.known || frame.rip != e.calls.lstar && frame.rip != e.calls.cstar {
		if err := e.learnSyscalls(); err != nil {
			return e.fail(err)
		}
	}
	if frame.rip != e.calls.lstar && frame.rip != e.calls.cstar {
		return unknown
	}
	selector := uint16(e.calls.star>>32) &^ 3
	switch {
	case frame.isUserFetch():
		e.calls.retries = 0
		frame.rflags &^= e.calls.mask | x86.FlagRF
	case frame.isEntry(selector) && e.calls.retries < mostRetries && e.canFetch(frame.rip):
		e.calls.retries++
	default:
		return unknown
	}
	e.op(OpSYSCALL)
	e.r.RIP, e.r.RSP, e.r.RFLAGS = frame.rip, frame.rsp, frame.rflags|x86.Flag1
	if s.CS.Selector == selector {
		return moved // with CPL 0 and L set, or CLAC would not be here
	}
	s.CS = x86.Segment{Selector: selector, Limit: ^uint32(0), Type: 11, S: 1, Present: 1, L: 1, G: 1}
	s.SS = x86.Segment{Selector: selector + 8, Limit: ^uint32(0), Type: 3, S: 1, Present: 1, DB: 1, G: 1}
	e.res.Sregs = true
	return moved
}

// canFetch says whether the guest's page tables let the kernel execute at a.
func (e *Engine) canFetch(a uint64) bool {
	_, _, ok := e.cpu.Translate(e.mem, a, paging.Fetch)
	return ok
}

type faultFrame struct {
	code, rip, cs, rflags, rsp uint64
}

// isUserFetch says whether a program's instruction fetch failed.
func (f *faultFrame) isUserFetch() bool {
	const want = x86.PFUser | x86.PFFetch
	return f.cs&3 == 3 && f.code&want == want && f.code>>16 == 0
}

// isEntry says whether the frame is that of a double fault right after SYSCALL.
func (f *faultFrame) isEntry(selector uint16) bool {
	return f.code == 0 && f.cs == uint64(selector) && f.rsp>>63 == 0
}

// faultFrame reads the frame on top of the stack and says whether it is that
// of a fault at RIP = CR2.
func (e *Engine) faultFrame() (f faultFrame, ok bool) {
	var b [40]byte
	before := e.res
	cr2 := e.s.CR2
	if !e.cpu.Canonical(e.r.RSP) || e.read(e.r.RSP, b[:]) != done {
		e.res, e.s.CR2, e.err = before, cr2, nil // not a fault of the guest's: it did not ask
		return f, false
	}
	word := func(n int) uint64 { return binary.LittleEndian.Uint64(b[8*n:]) }
	f = faultFrame{code: word(0), rip: word(1), cs: word(2), rflags: word(3), rsp: word(4)}
	return f, f.rip == cr2
}
