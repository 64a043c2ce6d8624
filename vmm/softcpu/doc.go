// Package softcpu is a software x86-64: an interpreter in pure Go behind the
// same small interface as vmm/kvm, for hosts that have no KVM or whose KVM
// emulates guest kernels, and for runs that must be repeatable.
//
// # How it works
//
// Guest code is decoded once into blocks: runs of [inst] up to a branch, kept
// by physical address and mode (block.go). An inst carries a pointer to the
// Go function that executes it and its operands in the form that function
// wants them; the run loop (run.go) does no more than call one after the
// other. Blocks know their successors, so a loop never leaves that path.
//
// Guest memory is reached through a software TLB (tlb.go): an array per kind
// of access that maps a linear page to the host's bytes of the page. A hit is
// an index, a compare and a load. A page that holds decoded code is never in
// the write array, so that a store to it takes the slow path, which drops the
// code.
//
// Arithmetic flags are lazy (flags.go): an instruction stores its operands
// and result, and whoever reads a flag computes it. A conditional jump behind
// a compare is decoded into one inst with it.
//
// An instruction that faults returns false before it has changed anything. So
// does one that touches a device: Run returns the access as an exit, and the
// instruction runs again with the device's answer at the next Run (io.go). The
// chips of devices/apic, pic and pit answer without an exit, as do doorbells
// (bell.go).
//
// Several CPUs take turns (turn.go): one executes at a time. A machine's time
// is the host's or, with Options.Deterministic, what the instructions make of
// it; then a run depends on nothing but the guest and what comes from outside.
//
// Debuggers, traces and the guest's debug registers (debug.go) look at single
// instructions only while they are in use. state.go and chips.go have what a
// snapshot wants.
//
// # What it is not
//
// A CPU without AVX, performance counters, system-management mode, nested
// virtualisation and hardware task switches. Transcendental x87 instructions
// are right to their last bit or two, as processors' are, but not the same as
// any one processor's. On hosts with weakly ordered memory (arm64) a device
// that polls a queue without having been notified may see the guest's stores
// in another order than the guest made them.
//
// SDM is the Intel 64 and IA-32 Architectures Software Developer's Manual;
// the opcode tables (table_*.go) are its volume 2, appendix A.
package softcpu
