package compare

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"time"
)

// resultFormat is the version of the JSON that a comparison is kept in.
const resultFormat = 1

// Kind is what sort of engine one is.
type Kind string

// The kinds of engines.
const (
	KindProcess   Kind = "process"
	KindContainer Kind = "container"
	KindMachine   Kind = "machine"
)

// Result is a comparison: what was measured, and on what host.
type Result struct {
	Format   int            `json:"format"`
	When     time.Time      `json:"when"`
	Took     time.Duration  `json:"took_ns"`
	Vitrine  string         `json:"vitrine"`
	Host     Host           `json:"host"`
	Options  Options        `json:"options"`
	Engines  []EngineResult `json:"engines"`
	Skipped  []Skipped      `json:"skipped"`
	Warnings []string       `json:"warnings"`
}

// Options are what of a Config a reader needs.
type Options struct {
	Runs      int      `json:"runs"`
	Workloads []string `json:"workloads"`
	Scale     []int    `json:"scale"`
	Memory    uint64   `json:"memory_bytes"`
	PageCache string   `json:"page_cache"` // warm, or cold

	Budget  time.Duration `json:"budget_ns"`  // for all; slow engines got fewer runs
	Timeout time.Duration `json:"timeout_ns"` // of an instance
}

// Host is the machine that the comparison ran on.
type Host struct {
	CPU             string  `json:"cpu"`
	CPUs            int     `json:"cpus"`
	Memory          uint64  `json:"memory_bytes"`
	Kernel          string  `json:"kernel"`
	KVM             string  `json:"kvm"` // how KVM runs guests here
	KernelsEmulated bool    `json:"kernels_emulated"`
	Cgroups         string  `json:"cgroups"`
	LoadBefore      float64 `json:"load_before"` // processes that wanted a CPU, over the last minute
}

// Skipped is an engine that was not measured.
type Skipped struct {
	Engine string `json:"engine"`
	Reason string `json:"reason"`
}

// EngineResult is what was measured of one engine. All times are nanoseconds.
type EngineResult struct {
	Name     string             `json:"name"`
	Title    string             `json:"title"`
	Kind     Kind               `json:"kind"`
	Version  string             `json:"version"`
	Note     string             `json:"note,omitempty"` // what is particular about it here
	Start    []float64          `json:"start"`          // exec of the engine to the program's first act
	Exit     []float64          `json:"exit"`           // exec to the end of the engine
	Carry    []float64          `json:"carry"`          // of Start, the program's writing of the mark
	Work     map[string]Samples `json:"work"`
	Scale    []ScalePoint       `json:"scale"`
	CPU      []CPUPoint         `json:"cpu"`
	Disk     []DiskItem         `json:"disk"`
	Failures []string           `json:"failures,omitempty"`
	FS       string             `json:"file_system"` // what ./tmp is on
}

// Samples are the runs of one workload: by the program's clock, and by the
// host's from mark to mark.
type Samples struct {
	Own  []float64 `json:"own"`
	Host []float64 `json:"host"`
}

// OwnClock says whether the program's clock in this engine can be believed: it
// is finer than a millisecond, and all in all it agrees with the host's to a
// tenth. Single workloads need not: a busy host stamps marks late. Machines
// without a clock that the guest's kernel trusts count timer ticks.
func (e *EngineResult) OwnClock() bool {
	coarse := true
	var own, host float64
	runs := 0
	for _, s := range e.Work {
		if len(s.Own) != len(s.Host) {
			return false
		}
		runs = max(runs, len(s.Own))
		for i, v := range s.Own {
			own, host = own+v, host+s.Host[i]
			coarse = coarse && math.Mod(v, 1e6) == 0
		}
	}
	return !coarse && math.Abs(own-host) <= 0.1*host+clockSlack*float64(runs)
}

// clockSlack is how much longer in nanoseconds a run may take by the host's
// clock: the marks travel, and who reads them may have to wait for a CPU.
const clockSlack = 10e6

// Times are the runs of a workload: by the program's clock, where it can be
// believed, else by the host's.
func (e *EngineResult) Times(workload string) []float64 {
	if e.OwnClock() {
		return e.Work[workload].Own
	}
	var times []float64
	for _, v := range e.Work[workload].Host {
		times = append(times, max(v, leastBetweenMarks))
	}
	return times
}

// leastBetweenMarks is the shortest time in nanoseconds that the arrival of two
// marks can tell from none: they may come in one piece.
const leastBetweenMarks = 10e3

// ScalePoint is the state with so many idle instances.
type ScalePoint struct {
	Instances int       `json:"instances"`
	Start     []float64 `json:"start"` // of the instances added for this point
	Memory    Memory    `json:"memory"`
}

// Memory is the host memory of all instances of an engine together, in bytes.
type Memory struct {
	GuestRAM   uint64 `json:"guest_ram"`   // of it what the guest has touched
	Private    uint64 `json:"private"`     // of the processes, theirs alone
	Shared     uint64 `json:"shared"`      // their proportional part of what they share
	PageTables uint64 `json:"page_tables"` // of their address spaces
	Kernel     uint64 `json:"kernel"`      // charged to their cgroups as kernel memory
	Daemons    uint64 `json:"daemons"`     // of processes that serve every instance, not in Total

	ramMapped uint64 // of GuestRAM, what is mapped from files
}

// Total is all that instances cost; daemons are apart.
func (m Memory) Total() uint64 {
	return m.GuestRAM + m.Private + m.Shared + m.PageTables + m.Kernel
}

// CPUPoint is how busy the engine's processes were, in CPUs, over the time
// since the point before.
type CPUPoint struct {
	At    float64 `json:"at"`    // nanoseconds since the program's first act
	Host  float64 `json:"host"`  // in the host: the engine's own work, or all of it without a guest
	Guest float64 `json:"guest"` // in the guest, as far as the host knows the difference
}

// DiskItem is a file that an engine needs.
type DiskItem struct {
	Kind  string `json:"kind"` // engine, kernel, root
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
}

// WriteJSON writes the comparison so that Read reads it.
func (r *Result) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(r)
}

// maxResult bounds what Read takes in.
const maxResult = 64 << 20

// Read reads what WriteJSON wrote.
func Read(r io.Reader) (*Result, error) {
	var res Result
	if err := json.NewDecoder(io.LimitReader(r, maxResult)).Decode(&res); err != nil {
		return nil, fmt.Errorf("not a comparison: %w: use the JSON file that vitrine compare wrote", err)
	}
	if res.Format != resultFormat {
		return nil, fmt.Errorf("a comparison of format %d: this vitrine reads format %d", res.Format, resultFormat)
	}
	return &res, res.check()
}

// check refuses what no measurement gives, and no chart survives.
func (r *Result) check() error {
	for i := range r.Engines {
		if err := r.Engines[i].check(); err != nil {
			return fmt.Errorf("engine %s: %w: the file is damaged", r.Engines[i].Name, err)
		}
	}
	return nil
}

// What is more than these is no measurement: months, more memory and more
// instances than any host has.
const (
	mostTime      = 1e16 // nanoseconds
	mostBytes     = 1 << 50
	mostInstances = 1 << 20
	mostCPUs      = 1 << 16
)

func (e *EngineResult) check() error {
	if _, ok := kindStyles[e.Kind]; !ok {
		return fmt.Errorf("kind %q", e.Kind)
	}
	lists := [][]float64{e.Start, e.Exit, e.Carry}
	for _, s := range e.Work {
		lists = append(lists, s.Own, s.Host)
	}
	for _, p := range e.Scale {
		lists = append(lists, p.Start)
		m := p.Memory
		if p.Instances < 1 || p.Instances > mostInstances {
			return fmt.Errorf("%d instances", p.Instances)
		}
		if max(m.GuestRAM, m.Private, m.Shared, m.PageTables, m.Kernel, m.Daemons) > mostBytes {
			return fmt.Errorf("memory %+v", m)
		}
	}
	for _, l := range lists {
		for _, x := range l {
			if !(x >= 0 && x <= mostTime) {
				return fmt.Errorf("a time of %g ns", x)
			}
		}
	}
	for _, p := range e.CPU {
		if !(math.Abs(p.At) <= mostTime && p.Host >= 0 && p.Host <= mostCPUs && p.Guest >= 0 && p.Guest <= mostCPUs) {
			return fmt.Errorf("a CPU use of %+v", p)
		}
	}
	for _, d := range e.Disk {
		if d.Bytes < 0 || d.Bytes > mostBytes {
			return fmt.Errorf("a file of %d bytes", d.Bytes)
		}
	}
	return nil
}
