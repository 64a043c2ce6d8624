package control

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// Glance is what a live view shows of a machine several times a second
// (/v1/inspect/glance). All counters but the gauges only grow.
type Glance struct {
	Time    time.Time      `json:"time"`
	CPUTime time.Duration  `json:"cpuTime"` // of the whole process, in nanoseconds
	Paused  bool           `json:"paused"`
	CPUs    []CPUGlance    `json:"cpus"`
	Devices []DeviceGlance `json:"devices"`
}

// CPUGlance is where a vCPU is and what it has done.
type CPUGlance struct {
	Time   time.Duration     `json:"time"` // that its thread has run
	Exits  map[string]uint64 `json:"exits"`
	State  string            `json:"state"` // runs, halted, waits, unknown
	Mode   string            `json:"mode"`
	CPL    uint8             `json:"cpl"`
	RIP    Hex               `json:"rip"`
	RSP    Hex               `json:"rsp"`
	CR3    Hex               `json:"cr3"`
	RFLAGS Hex               `json:"rflags"`
}

// DeviceGlance is a virtio device.
type DeviceGlance struct {
	Name      string        `json:"name"`
	Type      string        `json:"type"`
	Transport string        `json:"transport"`
	Status    uint8         `json:"status"`
	Error     string        `json:"error,omitempty"` // how the driver broke the protocol
	Queues    []QueueGlance `json:"queues"`
}

// QueueGlance is a virtqueue. Offered and InFlight are gauges: chains that the
// device has not taken yet, and those it works on.
type QueueGlance struct {
	Purpose    string `json:"purpose"`
	Size       uint16 `json:"size"`
	Ready      bool   `json:"ready"`
	Offered    uint16 `json:"offered"`
	InFlight   uint16 `json:"inFlight"`
	Chains     uint64 `json:"chains"`
	Kicks      uint64 `json:"kicks"`
	Interrupts uint64 `json:"interrupts"`
	Suppressed uint64 `json:"suppressed"`
}

// StepRequest asks a paused machine for instructions of one CPU
// (/v1/action/step).
type StepRequest struct {
	CPU   int `json:"cpu"`
	Count int `json:"count"` // 0: one
}

// StepAnswer says how many were executed, and why not all of them.
type StepAnswer struct {
	Steps      int    `json:"steps"`
	Unfinished string `json:"unfinished,omitempty"`
}

// Hex is a 64-bit value that JSON carries as text, "0x1f": numbers there are
// exact only up to 2^53.
type Hex uint64

// MarshalJSON implements json.Marshaler.
func (h Hex) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, `"%#x"`, uint64(h)), nil }

// UnmarshalJSON implements json.Unmarshaler.
func (h *Hex) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	v, err := strconv.ParseUint(s, 0, 64)
	*h = Hex(v)
	return err
}
