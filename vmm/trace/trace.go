// Package trace is the stream of what happens in a machine: exits, accesses to
// devices, interrupts, virtqueue work. Whoever wants to look (the trace
// command, a recording, the live view) reads the same events.
//
// A source of events (a vCPU, a device) writes to a Ring of its own. While
// nobody looks there is no ring, and a source's check for one is a load and a
// branch. A reader that is too slow loses the oldest events and is told how
// many.
package trace

import (
	"fmt"
	"time"
)

// Kind is what happened.
type Kind uint8

// Kinds of event. The comments say what Addr, Value and Aux hold.
const (
	KindNone        Kind = iota
	KindIO               // port access: Addr port, Value data, Aux see Event.Device
	KindMMIO             // memory-mapped access: Addr guest physical address, Value data, Aux as for KindIO
	KindExit             // another exit: Addr x86.ExitReason, Value its detail
	KindComplete         // an instruction that the VMM completed: Value its first bytes, little-endian
	KindReadMSR          // Addr MSR, Value data
	KindWriteMSR         // Addr MSR, Value data
	KindIRQ              // a device raised an interrupt: Addr line, or the queue for a message
	KindDoorbell         // the driver rang a queue's doorbell: Addr queue
	KindPop              // a device took a descriptor chain: Addr queue, Value head, Aux readable<<32 | writable bytes, RIP id
	KindPush             // a device gave one back: Addr queue, Value head, Aux bytes written, RIP id, Count the last of them | 0x100
	KindRequest          // what a chain meant: Addr operation, Value and Aux operands, for the device to decode
	KindMark             // the guest wrote the debug port: Value mark
	KindPhase            // the VMM reached a phase of the machine's life: Value vmm.Phase
	KindInstruction      // one instruction, of a software CPU: see Instruction
	KindData             // bytes that belong to the next event of the source with the same id: Addr, Value, RIP, Size of them; Aux id
	KindSegment          // a descriptor of such an event's chain: Addr guest physical address, Value length, Write device-writable; Aux id
	KindVector           // an exception or interrupt on its way to its handler: Addr vector, Value error code, Aux VectorHasCode…
	KindCPUID            // Addr leaf | subleaf<<32, Value EAX | EBX<<32, Aux ECX | EDX<<32
	KindHalt             // the CPU waits for an interrupt
	KindInput            // bytes arrived at a chip from outside: Value their number, KindData before it what they are
	KindRegisters        // what a KindInstruction that follows did to registers: as KindData
	KindUnknown          // an instruction that the software CPU does not have, before its #UD: Value and Aux its bytes
	kindCount
)

// Bits of a KindVector event's Aux.
const (
	VectorHasCode  = 1 << iota // an error code was pushed
	VectorSoftware             // INT n and its like
	VectorExternal             // from an interrupt controller
)

// NoDevice is the device of an access that nobody claimed.
const NoDevice = 0xffff_ffff

// Device says which device an access reached: an index into Session.Devices, or
// NoDevice, and the offset in that device's registers. For the data port of PCI
// configuration the offset is that of the port, with bits 0…15 of
// CONFIG_ADDRESS from bit 8 on.
func (e *Event) Device() (index uint32, offset uint32) { return uint32(e.Aux >> 32), uint32(e.Aux) }

var kindNames = [...]string{"none", "io", "mmio", "exit", "complete", "rdmsr", "wrmsr", "irq",
	"doorbell", "pop", "push", "request", "mark", "phase", "instruction",
	"data", "segment", "vector", "cpuid", "halt", "input", "registers", "unknown"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind-%d", uint8(k))
}

// ParseKind is the inverse of Kind.String.
func ParseKind(s string) (Kind, error) {
	for i, n := range kindNames {
		if n == s && i != 0 {
			return Kind(i), nil
		}
	}
	return 0, fmt.Errorf("no kind of event %q: want one of %v", s, kindNames[1:])
}

// NoCPU is the CPU of an event that no vCPU caused.
const NoCPU = 0xff

// Event is one thing that happened. It holds no pointers, so that a ring of a
// million costs the garbage collector nothing.
type Event struct {
	Time   time.Duration // since the tracer's start
	Took   time.Duration // spent on it in the VMM, at most 4 s
	Kind   Kind
	CPU    uint8  // the vCPU, or NoCPU
	Size   uint8  // bytes of one access
	Write  bool   // an access: the guest wrote
	Source uint16 // the device, as an index into the tracer's sources; 0 none
	Count  uint16 // accesses in one exit (string I/O)
	Addr   uint64
	Value  uint64
	Aux    uint64
	RIP    uint64 // of the instruction, 0 where not known
}

// words packs an event for the ring; Took and Time come back as they were.
func (e *Event) words() [7]uint64 {
	meta := uint64(e.Kind) | uint64(e.CPU)<<8 | uint64(e.Size)<<16 | uint64(min(e.Took, 1<<32-1))<<32
	if e.Write {
		meta |= 1 << 24
	}
	return [7]uint64{uint64(e.Time), meta, uint64(e.Source) | uint64(e.Count)<<16, e.Addr, e.Value, e.Aux, e.RIP}
}

func unpack(w *[7]uint64) Event {
	return Event{
		Time: time.Duration(w[0]), Took: time.Duration(w[1] >> 32),
		Kind: Kind(w[1]), CPU: uint8(w[1] >> 8), Size: uint8(w[1] >> 16), Write: w[1]>>24&1 != 0,
		Source: uint16(w[2]), Count: uint16(w[2] >> 16),
		Addr: w[3], Value: w[4], Aux: w[5], RIP: w[6],
	}
}
