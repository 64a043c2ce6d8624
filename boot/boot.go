// Package boot turns images into a guest that can be entered: it loads a
// kernel into guest memory, writes the structures that the boot protocol asks
// for, and says in which state the first CPU starts.
package boot

import "github.com/vitrine-vmm/vitrine/vmm/x86"

// Entry is the state in which the boot processor starts: the general and
// system registers that the boot protocol prescribes. Registers that no
// protocol mentions keep the accelerator's reset value.
type Entry struct {
	Protocol Protocol
	Regs     x86.Regs
	Apply    func(s *x86.Sregs) // changes the reset state of the system registers into the prescribed one
}

// Protocol is how a kernel is entered.
type Protocol uint8

// Protocols.
const (
	ProtocolAuto  Protocol = iota // as an Option: the best that the image offers
	ProtocolLinux                 // Linux 64-bit entry (Documentation/arch/x86/boot.rst, "64-bit Boot Protocol")
	ProtocolPVH                   // Xen PVH entry: 32-bit protected mode, hvm_start_info in EBX
)

func (p Protocol) String() string {
	switch p {
	case ProtocolLinux:
		return "linux"
	case ProtocolPVH:
		return "pvh"
	}
	return "auto"
}
