package lab

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// The virtio console of lab 9, the machine's first virtio-mmio device, and
// its registers (virtio 1.2 §4.2.2).
const (
	consoleBase     = 0xd000_0000
	regQueueNotify  = consoleBase + virtio.NotifyOffset
	regStatus       = consoleBase + 0x70
	transmitQueue   = 1
	consoleText     = "an exit is a walk to the door; a ring of buffers is one for all."
	statusDriverOK  = 4
	statusNeedReset = 64
)

// consoleStart is a machine with a virtio console, for n bytes of the text.
func consoleStart(n int, notify vmm.Notify) Start {
	return Start{BX: uint64(n), Flat: true, Notify: notify, Sent: new(output)}
}

// exitCases: once each notification is an exit, so that they can be counted;
// once a CPU that notifies waits for the device, so that what the device finds
// in the ring does not depend on who is faster.
func exitCases() ([]Start, error) {
	ordered := consoleStart(9, vmm.NotifyIOEventFD)
	ordered.Undisturbed = true
	ordered.Configure = func(c *vmm.Config) { c.Deterministic, c.Accel = true, string(vmm.AccelSoft) }
	return []Start{consoleStart(64, vmm.NotifyExit), ordered}, nil
}

func checkExits(r *Result) []string {
	want, got := consoleText[:r.Start.BX], r.Start.Sent.String()
	var broken []string
	if got != want {
		broken = append(broken, fmt.Sprintf("the virtio console must send %q, and sent %q", want, got))
		broken = append(broken, r.queueTrouble()...)
	}
	if n := r.accesses(com1, true); n > 0 {
		broken = append(broken, fmt.Sprintf("COM1 was written to %d times: each byte of a serial port is an exit, and the text is to go by the console", n))
	}
	return append(broken, r.countExits()...)
}

// queueTrouble says where the console's transmit queue stands.
func (r *Result) queueTrouble() (broken []string) {
	if len(r.Devices) == 0 {
		return nil
	}
	d := r.Devices[0]
	if d.Status&statusNeedReset != 0 {
		broken = append(broken, fmt.Sprintf("the device needs a reset, as the driver has broken a rule: %s", d.Error))
	}
	q := d.Queues[transmitQueue]
	if q.Ready && q.AvailIdx != q.UsedIdx {
		broken = append(broken, fmt.Sprintf("the available ring's idx is %d and the used ring's %d: "+
			"a device looks at the ring when it is notified, so first the idx is raised, then QueueNotify written", q.AvailIdx, q.UsedIdx))
	}
	return broken
}

// countExits says what there was beyond one notification, from DRIVER_OK on.
func (r *Result) countExits() (broken []string) {
	live, notes, others := false, 0, 0
	for i := range r.Events {
		e := &r.Events[i]
		switch {
		case e.Kind != trace.KindMMIO:
		case e.Write && e.Addr == regStatus:
			live = e.Value&statusDriverOK != 0
		case e.Write && e.Addr == regQueueNotify:
			notes++
		case live:
			others++
		}
	}
	if r.Start.Notify == vmm.NotifyExit && live && notes == 0 {
		broken = append(broken, "QueueNotify was never written: a device that sleeps does not see the ring change")
	}
	if notes > 1 {
		broken = append(broken, fmt.Sprintf("QueueNotify may be written once, and was written more often (%d times are on record): the ring holds everything before the device is told", notes))
	}
	if others > 0 {
		broken = append(broken, fmt.Sprintf("after DRIVER_OK there were %d accesses to registers beside the notification, each an exit: the used ring is in memory, where a look costs none", others))
	}
	return broken
}

// exitParts are the parts of lab 9's demonstration, by their marks.
var exitParts = []struct {
	what string
	n    int
}{
	{"OUT to a port", 256}, {"read of a register (MMIO)", 256}, {"notification", 256}, {"look at the used ring", 256},
	{"byte by the serial port", 64}, {"byte by virtio, one by one", 64}, {"byte by virtio, all at once", 64},
}

const firstMark = 0x21

// part is what a part of a program took.
type part struct {
	exits uint64
	took  time.Duration
}

// meter follows a program's marks. Its mark is called by the CPU.
type meter struct {
	mu    sync.Mutex
	m     *vmm.Machine
	parts map[uint8]part // by the mark that begins them
	now   uint8          // the mark that was last; 0 before the first
	since time.Time
	exits uint64
	done  chan struct{} // closed by the mark behind the last part
}

func (t *meter) mark(n uint8) {
	end := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if n < firstMark || t.m == nil {
		return
	}
	counts := t.m.CPUStats()[0].Exits
	exits := counts[x86.ExitIO.String()] + counts[x86.ExitMMIO.String()]
	if t.now != 0 {
		t.parts[t.now] = part{exits - t.exits - 1, end.Sub(t.since)} // the mark is an exit too
	}
	if int(n) == firstMark+len(exitParts) && t.now != n {
		close(t.done)
	}
	t.now, t.exits, t.since = n, exits, time.Now()
}

// measure runs a program, undisturbed, to its last mark.
func measure(ctx context.Context, program []byte, notify vmm.Notify, o Options) (map[uint8]part, vmm.Accelerator, error) {
	t := &meter{parts: make(map[uint8]part), done: make(chan struct{})}
	s := consoleStart(64, notify)
	s.Configure = func(c *vmm.Config) { c.OnMark = t.mark }
	m, err := newMachine(program, s, o, new(output))
	if err != nil {
		return nil, "", err
	}
	defer m.Close()
	t.mu.Lock()
	t.m = m
	t.mu.Unlock()
	r := &Result{Start: s, Mem: m.Memory(), m: m}
	if err := m.Pause(ctx); err != nil {
		return nil, "", err
	}
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	err = m.OnCPU(0, r.begin)
	if err == nil {
		err = m.Resume()
	}
	if err != nil {
		m.Stop(err)
		<-ended
		return nil, "", err
	}
	select {
	case <-t.done:
	case <-time.After(o.Limit):
	case err := <-ended:
		return nil, "", r.crashed(err)
	}
	m.Stop(nil)
	<-ended
	return t.parts, m.Accelerator(), nil
}

// runExits prints lab 9's table: the demonstration with each way of
// notification, side by side. A program without marks is run as others are.
func runExits(ctx context.Context, program []byte, o Options, w io.Writer) error {
	ways := []vmm.Notify{vmm.NotifyIOEventFD, vmm.NotifyExit}
	var columns []map[uint8]part
	var accel vmm.Accelerator
	for _, n := range ways {
		parts, a, err := measure(ctx, program, n, o)
		if err != nil {
			return err
		}
		columns, accel = append(columns, parts), a
	}
	if len(columns[0]) == 0 {
		return runConsole(ctx, program, o, w)
	}
	fmt.Fprintf(w, "%-34s%20s%20s\n%-34s%s\n", "accelerator: "+string(accel), "--notify ioeventfd", "--notify exit", "",
		strings.Repeat("     exits   µs each", len(ways)))
	for i, p := range exitParts {
		fmt.Fprintf(w, "%4d × %-27s", p.n, p.what)
		for _, c := range columns {
			v, ok := c[uint8(firstMark+i)]
			if !ok {
				return fmt.Errorf("the program stopped before its part %d, %s, was over: vitrine lab check says more", i+1, p.what)
			}
			fmt.Fprintf(w, "%10d%10.2f", v.exits, float64(v.took.Nanoseconds())/1000/float64(p.n))
		}
		fmt.Fprintln(w)
	}
	return nil
}

// runConsole runs a program of the learner's and says what became of it.
func runConsole(ctx context.Context, program []byte, o Options, w io.Writer) error {
	for _, n := range []vmm.Notify{vmm.NotifyIOEventFD, vmm.NotifyExit} {
		r, err := Run(ctx, program, consoleStart(64, n), o)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "--notify %s: the console sent %q, with %d exits\n", n, r.Start.Sent.String(), r.Exits())
		if !r.Halted {
			fmt.Fprintln(w, r.Why)
		}
		if err := r.Close(); err != nil {
			return err
		}
	}
	return nil
}
