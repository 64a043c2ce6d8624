package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/clinic"
	"github.com/vitrine-vmm/vitrine/vmm/compare"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// Options say how programs run.
type Options struct {
	Accel string        // as vmm.Config.Accel
	Limit time.Duration // after which a program that has not halted is stopped
	// CacheDir keeps the embedded kernel unpacked; "": it is unpacked each time.
	CacheDir string
	Core     string // the file for a core when the CPU gives up; "" for none

	// Compare measures containers and machines; nil where that cannot be.
	Compare func(context.Context) (*compare.Result, error)
}

// Result is how a program ended.
type Result struct {
	Start   Start
	Halted  bool // all CPUs that were started are in HLT with interrupts off, the end that a lab's program has, or it said Start.Until
	Why     string
	Output  string
	CPU                   // the boot processor
	Others  []CPU         // the other CPUs
	Mem     *memory.Guest // until Close
	Events  []trace.Event // what it did, the first tens of thousands
	PIC     x86.PIC       // the one that has COM1's line
	Devices []virtio.Info
	m       *vmm.Machine
	out     *output
	events  *trace.Merger
}

// CPU is how a CPU was left.
type CPU struct {
	Regs  x86.Regs
	Sregs x86.Sregs
	State x86.MPState
}

// started says whether the CPU has run at all.
func (c *CPU) started() bool {
	return c.State != x86.MPUninitialized && c.State != x86.MPInitReceived
}

// done says whether nothing wakes the CPU any more but another one.
func (c *CPU) done() bool {
	return !c.started() || c.State == x86.MPHalted && c.Regs.RFLAGS&x86.FlagIF == 0
}

// Exits is how often the program left for a device.
func (r *Result) Exits() (n int) {
	for i := range r.Events {
		if k := r.Events[i].Kind; k == trace.KindIO || k == trace.KindMMIO {
			n++
		}
	}
	return n
}

// Close releases the machine.
func (r *Result) Close() error { return r.m.Close() }

// output collects what COM1 sends; one that never ends is cut.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	const longest = 1 << 16
	o.mu.Lock()
	defer o.mu.Unlock()
	o.b.Write(p[:min(len(p), longest-o.b.Len())])
	return len(p), nil
}

func (o *output) String() string { o.mu.Lock(); defer o.mu.Unlock(); return o.b.String() }

// Run runs a program until it halts with interrupts off, the CPU gives up or
// the time is over. An error is the host's; how the guest ended is the result.
func Run(ctx context.Context, program []byte, s Start, o Options) (r *Result, err error) {
	if len(program) == 0 || len(program) > maxProgram {
		return nil, fmt.Errorf("lab: a program of %d bytes: want 1 to %d", len(program), maxProgram)
	}
	out := &output{}
	m, err := newMachine(program, s, o, out)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	r = &Result{Start: s, Mem: m.Memory(), Others: make([]CPU, max(s.CPUs, 1)-1), m: m, out: out}
	return r, r.run(ctx, max(o.Limit, s.Limit), r.begin)
}

// run runs the result's machine to its end, from what begin makes of the boot
// processor. After an error the machine is closed.
func (r *Result) run(ctx context.Context, limit time.Duration, begin func(vmm.VCPU) error) (err error) {
	m := r.m
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	r.events = m.Observe(keepEvents).NewMerger()
	defer m.Unobserve()
	if err := m.Pause(ctx); err != nil { // parks the CPUs before their first instruction
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	if err := r.follow(ctx, ended, limit, begin); err != nil {
		return err
	}
	r.Output = r.out.String()
	r.drain()
	r.Devices = m.VirtioDevices()
	return nil
}

// drain takes what has happened since.
func (r *Result) drain() {
	if len(r.Events) < maxEvents {
		r.Events = r.events.Drain(r.Events, maxEvents-len(r.Events))
	}
}

// follow lets the machine run and looks at it now and then until it has ended.
func (r *Result) follow(ctx context.Context, ended <-chan error, limit time.Duration, begin func(vmm.VCPU) error) error {
	fail := func(err error) error {
		r.m.Stop(err)
		<-ended
		return err
	}
	if err := r.m.OnCPU(0, begin); err != nil {
		return fail(err)
	}
	begun := time.Now()
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		if err := r.m.Resume(); err != nil {
			return fail(err)
		}
		if over, err := r.leave(ended, wait, begun, limit); over {
			return r.crashed(err)
		}
		if err := r.m.Pause(ctx); err != nil {
			return r.crashed(<-ended)
		}
		if err := r.look(); err != nil {
			return fail(err)
		}
		r.drain()
		r.Halted = r.ready()
		if r.Halted || r.over(time.Since(begun), limit) {
			r.m.Stop(nil)
			<-ended
			if !r.Halted {
				r.Why = r.overdue(limit)
			}
			return nil
		}
	}
}

// over says whether the program has had its time. One whose CPU is running, on a
// host that has had little time for it, gets more.
func (r *Result) over(since, limit time.Duration) bool {
	if since < limit {
		return false
	}
	stats := r.m.CPUStats()
	waits := r.State == x86.MPHalted && len(r.Others) == 0
	had := stats[0].Time
	if had == 0 { // where the host does not tell, or its thread never had a turn
		had = since / 16
	}
	return waits || had >= limit/4 || since >= 10*limit
}

// leave leaves the machine alone for a while; over says that it has ended.
func (r *Result) leave(ended <-chan error, wait time.Duration, begun time.Time, limit time.Duration) (over bool, err error) {
	for {
		select {
		case err := <-ended:
			return true, err
		case <-time.After(wait):
		}
		if !r.Start.Undisturbed || r.over(time.Since(begun), limit) {
			return false, nil
		}
		r.drain()
		if n := len(r.Events); n > 0 && r.Events[n-1].Kind == trace.KindHalt {
			return false, nil
		}
		wait = time.Millisecond
	}
}

// look reads all CPUs.
func (r *Result) look() error {
	cpus := []*CPU{&r.CPU}
	for i := range r.Others {
		cpus = append(cpus, &r.Others[i])
	}
	for id, cpu := range cpus {
		if err := r.m.OnCPU(id, cpu.read); err != nil {
			return err
		}
	}
	chips, err := r.m.Chips()
	r.PIC = chips.PICs[0]
	return err
}

func (c *CPU) read(v vmm.VCPU) (err error) {
	if c.Regs, err = v.Regs(); err != nil {
		return err
	}
	if c.Sregs, err = v.Sregs(); err != nil {
		return err
	}
	p, ok := v.(interface{ MPState() (x86.MPState, error) })
	if !ok {
		return errors.New("the accelerator does not tell whether the CPU is halted")
	}
	c.State, err = p.MPState()
	return err
}

// ready says whether the program has come to its end.
func (r *Result) ready() bool {
	if u := r.Start.Until; u != "" && strings.Contains(r.out.String(), u) {
		return true
	}
	done := r.started() && r.done()
	for i := range r.Others {
		done = done && r.Others[i].done()
	}
	return done
}

// crashed is for a run that ended by itself.
func (r *Result) crashed(err error) error {
	var stop *vmm.StopError
	switch {
	case err == nil:
		r.Why = "the program turned the machine off instead of halting"
	case errors.As(err, &stop) && stop.Cause != vmm.CauseHost && stop.Cause != vmm.CauseStopped:
		r.Why = stop.Error()
	default:
		return err
	}
	return nil
}

// overdue says what the first CPU that has not halted is doing.
func (r *Result) overdue(limit time.Duration) string {
	cpu, id := &r.CPU, 0
	for i := range r.Others {
		if cpu.done() {
			cpu, id = &r.Others[i], i+1
		}
	}
	it := "it"
	if id > 0 {
		it = fmt.Sprintf("CPU %d", id)
	}
	if cpu.State == x86.MPHalted {
		return fmt.Sprintf("after %v %s sleeps in HLT before rip %#x with interrupts on: it waits for an interrupt that does not come", limit, it, cpu.Regs.RIP)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "after %v %s has not halted; it is here, at rip %#x:", limit, it, cpu.Regs.RIP)
	for _, l := range clinic.Disassemble(&clinic.State{Regs: cpu.Regs, Sregs: cpu.Sregs, Mem: r.Mem}, 2, 3) {
		fmt.Fprintf(&b, "\n    %v", l)
	}
	return b.String()
}
