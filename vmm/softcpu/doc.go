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
// instruction runs again with the device's answer at the next Run (mmio.go).
//
// SDM is the Intel 64 and IA-32 Architectures Software Developer's Manual;
// the opcode tables (table_*.go) are its volume 2, appendix A.
package softcpu
