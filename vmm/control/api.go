package control

import (
	"context"
	"net"
	"net/http"
	"time"
)

// Paths of the control socket's API (docs/control-api.yaml). Those marked with
// an asterisk turn the connection into a stream of bytes.
const (
	pathMachine = "/v1/machine"    // GET: Record
	pathStats   = "/v1/stats"      // GET: Stats
	pathPause   = "/v1/pause"      // POST
	pathResume  = "/v1/resume"     // POST
	pathStop    = "/v1/stop"       // POST ?time=10s
	pathKill    = "/v1/kill"       // POST
	pathWait    = "/v1/wait"       // GET: Record, when the machine has ended
	pathVsock   = "/v1/vsock/"     // GET {port} * connects to a port in the guest
	pathConsole = "/v1/console"    // GET * the console
	pathView    = "/v1/inspect/"   // GET {what}
	pathAction  = "/v1/action/"    // POST {what}
	pathStream  = "/v1/stream/"    // GET {what} * what a part of the VMM streams
	upgradeTo   = "vitrine-stream" // the value of the Upgrade header
	jsonType    = "application/json"
)

// Stats are a machine's counters. All but Memory and the gauges only grow.
type Stats struct {
	Time time.Time `json:"time"`

	CPUTime   time.Duration           `json:"cpuTime"`  // of the whole process, in nanoseconds
	GuestTime time.Duration           `json:"vcpuTime"` // of the vCPU threads
	VCPUs     []VCPUStats             `json:"vcpus"`
	Memory    MemoryStats             `json:"memory"`
	Disks     map[string]DiskStats    `json:"disks,omitempty"`
	Networks  map[string]NetworkStats `json:"networks,omitempty"`
	Queues    map[string][]QueueStats `json:"queues,omitempty"`
}

// VCPUStats are one vCPU's exits, by reason.
type VCPUStats struct {
	Time  time.Duration     `json:"time"` // that its thread has run
	Exits map[string]uint64 `json:"exits"`
}

// MemoryStats are the memory of the machine's process, in bytes.
type MemoryStats struct {
	Guest    uint64 `json:"guest"`    // what the guest was given
	Resident uint64 `json:"resident"` // RSS of the process
	PSS      uint64 `json:"pss"`      // its proportional share
	Shared   uint64 `json:"shared"`   // pages that others map too
	Own      uint64 `json:"own"`      // PSS outside guest memory: the VMM itself
	GuestPSS uint64 `json:"guestPSS"` // PSS of guest memory
}

// DiskStats are one disk's counters.
type DiskStats struct {
	Reads        uint64 `json:"reads"`
	Writes       uint64 `json:"writes"`
	Flushes      uint64 `json:"flushes"`
	Discards     uint64 `json:"discards"`
	ReadBytes    uint64 `json:"readBytes"`
	WrittenBytes uint64 `json:"writtenBytes"`
	Errors       uint64 `json:"errors"`
}

// NetworkStats are one network device's counters, seen from the guest.
type NetworkStats struct {
	RxFrames  uint64 `json:"rxFrames"`
	RxBytes   uint64 `json:"rxBytes"`
	RxDropped uint64 `json:"rxDropped"`
	TxFrames  uint64 `json:"txFrames"`
	TxBytes   uint64 `json:"txBytes"`
	TxDropped uint64 `json:"txDropped"`
}

// QueueStats are one virtqueue's counters.
type QueueStats struct {
	Chains     uint64 `json:"chains"`
	Kicks      uint64 `json:"kicks"`
	Interrupts uint64 `json:"interrupts"`
	Suppressed uint64 `json:"suppressed"` // interrupts that the driver did not want
	InFlight   uint16 `json:"inFlight"`   // a gauge
}

// Machine is what a control socket needs of the machine behind it. Every
// method may be called from any goroutine; the server calls those that change
// the machine one at a time.
type Machine interface {
	Record() Record
	Stats() (Stats, error)
	Pause(ctx context.Context) error
	Resume() error
	// Shutdown asks the guest to turn itself off, without waiting for it.
	Shutdown(ctx context.Context) error
	// Kill ends the machine now.
	Kill(reason string)
	// Done is closed when the machine has ended.
	Done() <-chan struct{}
	// Dial connects to a vsock port in the guest.
	Dial(ctx context.Context, port uint32) (net.Conn, error)
	// Console joins the console; nil if the machine has none.
	Console() *Hub
}

// Extra are handlers of parts that the control package does not know: what
// they serve is below /v1/inspect/, /v1/action/ and /v1/stream/.
type Extra struct {
	Inspect map[string]http.Handler
	Action  map[string]http.Handler
	// Stream handlers get the connection to themselves, after the upgrade,
	// until they return.
	Stream map[string]func(ctx context.Context, r *http.Request, conn net.Conn) error
}
