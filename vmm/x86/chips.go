package x86

// MPState says whether a CPU of a multiprocessor runs, with the numbers of
// struct kvm_mp_state.
type MPState uint32

// MP states.
const (
	MPRunnable      MPState = 0
	MPUninitialized MPState = 1 // a CPU that is not the boot processor, before INIT
	MPInitReceived  MPState = 2 // waits for the start-up IPI
	MPHalted        MPState = 3 // HLT
	MPSIPIReceived  MPState = 4
)

// LAPIC is a local APIC: its register page, 1024 bytes as struct
// kvm_lapic_state has them (register r at offset 16·r, SDM vol. 3, table
// 11-1). IA32_TSC_DEADLINE and IA32_APIC_BASE are MSRs beside it.
type LAPIC struct {
	Regs []byte `json:"regs"`
}

// IOAPIC is an I/O APIC, with the fields of struct kvm_ioapic_state.
type IOAPIC struct {
	Select      uint32     `json:"select"` // index register
	ID          uint32     `json:"id"`
	Lines       uint32     `json:"lines"` // levels of the pins: KVM's irr
	Redirection [24]uint64 `json:"redirection"`
}

// PIC is one 8259A, with the fields of struct kvm_pic_state.
type PIC struct {
	LastIRR          uint8 `json:"last_irr"` // levels of the inputs
	IRR              uint8 `json:"irr"`
	IMR              uint8 `json:"imr"`
	ISR              uint8 `json:"isr"`
	PriorityAdd      uint8 `json:"priority_add"` // the input with the highest priority
	IRQBase          uint8 `json:"irq_base"`     // ICW2
	ReadISR          uint8 `json:"read_isr"`     // OCW3: the next read gives ISR, not IRR
	Poll             uint8 `json:"poll"`
	SpecialMask      uint8 `json:"special_mask"`
	InitState        uint8 `json:"init_state"` // the initialisation word that is expected, less 1; 0: none
	AutoEOI          uint8 `json:"auto_eoi"`
	RotateOnAutoEOI  uint8 `json:"rotate_on_auto_eoi"`
	SpecialFullyNest uint8 `json:"special_fully_nested"`
	Init4            uint8 `json:"init4"` // ICW4 is expected
	ELCR             uint8 `json:"elcr"`  // level-triggered inputs
	ELCRMask         uint8 `json:"elcr_mask"`
}

// PITChannel is one counter of an 8254, with the fields of struct
// kvm_pit_channel_state. LoadTime is when the count was loaded, in nanoseconds
// of the machine's clock.
type PITChannel struct {
	Count         uint32 `json:"count"` // reload value; 65536 for a written 0
	LatchedCount  uint16 `json:"latched_count"`
	CountLatched  uint8  `json:"count_latched"` // what of LatchedCount is to be read: a RW mode, or 0
	StatusLatched uint8  `json:"status_latched"`
	Status        uint8  `json:"status"`
	ReadState     uint8  `json:"read_state"`
	WriteState    uint8  `json:"write_state"`
	WriteLatch    uint8  `json:"write_latch"`
	RWMode        uint8  `json:"rw_mode"`
	Mode          uint8  `json:"mode"`
	BCD           uint8  `json:"bcd"`
	Gate          uint8  `json:"gate"`
	LoadTime      int64  `json:"load_time"`
}

// PIT is an 8254 with port 0x61's speaker bit, as struct kvm_pit_state2.
type PIT struct {
	Channels [3]PITChannel `json:"channels"`
	Speaker  uint8         `json:"speaker"` // bit 1 of port 0x61
}

// Chips are the interrupt controllers and the timer that all CPUs share. A
// pair of 8259s is the primary and the secondary.
type Chips struct {
	PICs   [2]PIC `json:"pics"`
	IOAPIC IOAPIC `json:"ioapic"`
	PIT    PIT    `json:"pit"`
}
