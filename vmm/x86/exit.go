package x86

import "fmt"

// ExitReason says why a vCPU stopped executing guest code.
type ExitReason uint32

// Exit reasons. The comments name the KVM exits that they stand for.
const (
	ExitUnknown       ExitReason = iota // an exit that the VMM has no handling for; Hardware has its number
	ExitIO                              // KVM_EXIT_IO
	ExitMMIO                            // KVM_EXIT_MMIO
	ExitHLT                             // KVM_EXIT_HLT: only when the accelerator has no interrupt controller of its own
	ExitShutdown                        // KVM_EXIT_SHUTDOWN: triple fault
	ExitFailEntry                       // KVM_EXIT_FAIL_ENTRY: Hardware has the reason
	ExitInternalError                   // KVM_EXIT_INTERNAL_ERROR: SubError, Instruction
	ExitSystemEvent                     // KVM_EXIT_SYSTEM_EVENT: SubError has the type
	ExitDebug                           // KVM_EXIT_DEBUG: Debug
	ExitReadMSR                         // KVM_EXIT_X86_RDMSR: MSR, to be answered in *MSRData
	ExitWriteMSR                        // KVM_EXIT_X86_WRMSR
	ExitInterrupted                     // KVM_RUN returned EINTR: look whether to stop, then go on
	ExitReset                           // the accelerator itself was asked to reset the machine
)

var exitNames = [...]string{"unknown", "io", "mmio", "hlt", "shutdown", "fail-entry", "internal-error",
	"system-event", "debug", "rdmsr", "wrmsr", "interrupted", "reset"}

func (r ExitReason) String() string {
	if int(r) < len(exitNames) {
		return exitNames[r]
	}
	return fmt.Sprintf("exit-%d", uint32(r))
}

// Internal-error suberrors (KVM_INTERNAL_ERROR_*).
const (
	InternalErrorEmulation        = 1
	InternalErrorSimulEx          = 2
	InternalErrorDeliveryEv       = 3
	InternalErrorUnexpectedReason = 4
)

// Exit is one return from guest execution. Data and Instruction alias memory
// of the accelerator and are valid until the next Run of the same vCPU; a
// device answers a read by filling Data.
type Exit struct {
	Reason ExitReason
	Write  bool   // IO, MMIO: the guest writes
	Size   uint8  // IO: bytes of one access: 1, 2 or 4; MMIO: 1…8
	Port   uint16 // IO
	Count  uint32 // IO: accesses in Data, one after the other (string I/O); MMIO: 1
	Addr   uint64 // MMIO: guest physical address; Debug: linear address of the instruction
	Data   []byte // IO: Count*Size bytes; MMIO: Size bytes

	SubError    uint32   // InternalError, SystemEvent
	Hardware    uint64   // FailEntry, Unknown: the number the hardware or KVM gave
	Instruction []byte   // InternalError: the bytes at RIP, where known
	Internal    []uint64 // InternalError: the raw data words

	MSR     uint32  // ReadMSR, WriteMSR
	MSRData *uint64 // ReadMSR: where to put the value; WriteMSR: the value
	MSRFail *uint8  // ReadMSR, WriteMSR: set to 1 to raise #GP

	Exception uint32 // Debug: vector (1 #DB, 3 #BP)
	DR6       uint64 // Debug
}
