package apic

import (
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// processor is a CPU that notes what its APIC wants, with a clock that the
// test turns.
type processor struct {
	*LAPIC
	now, due    uint64
	interrupted bool
	nmi, inits  int
	started     int // vector of the last start-up IPI, or -1
}

func (p *processor) Interrupt()        { p.interrupted = true }
func (p *processor) NMI()              { p.nmi++ }
func (p *processor) Init()             { p.inits++ }
func (p *processor) StartUp(v uint8)   { p.started = int(v) }
func (p *processor) Now() uint64       { return p.now }
func (p *processor) TSCOffset() uint64 { return 0 }
func (p *processor) Arm(t uint64)      { p.due = t }

// put and get go by the register's number, 1/16 of its offset.
func (p *processor) put(r int, v uint32) { p.Write(uint64(r)<<4, v) }
func (p *processor) get(r int) uint32    { return p.Read(uint64(r) << 4) }
func (p *processor) vector(t *testing.T) int {
	t.Helper()
	v, ok, _ := p.Acknowledge()
	if !ok {
		return -1
	}
	return int(v)
}

// newSystem is n CPUs with their APICs enabled.
func newSystem(n int) (*Net, []*processor) {
	net := new(Net)
	net.IO().Reset()
	var all []*processor
	for id := range n {
		p := &processor{now: 1000, started: -1}
		p.LAPIC = NewLAPIC(uint32(id), p, net)
		p.put(regSVR, svrEnable|0xff)
		p.put(regLDR, 1<<(24+id))
		all = append(all, p)
	}
	return net, all
}

func TestResetValues(t *testing.T) {
	net := new(Net)
	p := &processor{}
	p.LAPIC = NewLAPIC(3, p, net)
	for r, want := range map[int]uint32{regID: 3 << 24, regVersion: version, regTPR: 0, regDFR: ^uint32(0),
		regSVR: 0xff, regTimer: lvtMasked, regLINT0: lvtMasked, regError: lvtMasked, regICR: 0} {
		if v := p.get(r); v != want {
			t.Errorf("register %#x is %#x after reset, want %#x", r, v, want)
		}
	}
	if p.TakesExtINT() {
		t.Error("a CPU that is not the boot processor takes the 8259s' interrupts")
	}
	boot := &processor{}
	boot.LAPIC = NewLAPIC(0, boot, net)
	if !boot.TakesExtINT() {
		t.Error("the boot processor does not take the 8259s' interrupts")
	}
	boot.Write(0xf0, 0x1ff)
	boot.Write(0x350, lvtMasked)
	if boot.TakesExtINT() {
		t.Error("takes the 8259s' interrupts with LINT0 masked")
	}
	boot.Reset()
	if !boot.TakesExtINT() {
		t.Error("the boot processor does not take the 8259s' interrupts after INIT")
	}
}

func TestPriorities(t *testing.T) {
	net, cpus := newSystem(1)
	p := cpus[0]
	for _, v := range []uint32{0x31, 0x55, 0x52} {
		net.Message(0xfee00000, v)
	}
	if v := p.vector(t); v != 0x55 {
		t.Fatalf("first %#x, want the highest, 0x55", v)
	}
	if v := p.vector(t); v != -1 {
		t.Fatalf("%#x interrupts its own class", v)
	}
	if v := p.get(regPPR); v != 0x50 {
		t.Errorf("processor priority %#x, want 0x50", v)
	}
	p.put(regEOI, 0)
	if v := p.vector(t); v != 0x52 {
		t.Fatalf("then %#x, want 0x52", v)
	}
	p.put(regEOI, 0)
	p.put(regTPR, 0x40)
	if v := p.vector(t); v != -1 {
		t.Fatalf("%#x though the task priority is higher", v)
	}
	p.interrupted = false
	p.SetTPR(2)
	if !p.interrupted {
		t.Error("the CPU is not told when the task priority falls")
	}
	if v := p.vector(t); v != 0x31 {
		t.Fatalf("at last %#x, want 0x31", v)
	}
}

func TestDisabledAPICAcceptsNothing(t *testing.T) {
	net, cpus := newSystem(1)
	cpus[0].put(regSVR, 0xff)
	net.Message(0xfee00000, 0x40)
	if cpus[0].Pending() {
		t.Error("accepted while disabled by software")
	}
	cpus[0].put(regSVR, svrEnable|0xff)
	net.Message(0xfee00000, 0x0f)
	if cpus[0].Pending() || cpus[0].get(regESR)&(1<<6) == 0 {
		t.Error("a vector below 16 is not an error")
	}
}

func TestDestinations(t *testing.T) {
	const logical, lowest = 1 << 11, 1 << 8
	for _, c := range []struct {
		name     string
		high, lo uint32
		want     []bool
	}{
		{"physical", 2 << 24, 0x40, []bool{false, false, true, false}},
		{"physical broadcast", 0xff << 24, 0x40, []bool{true, true, true, true}},
		{"logical flat", 0x0a << 24, logical | 0x40, []bool{false, true, false, true}},
		{"lowest priority", 0x0c << 24, logical | lowest | 0x40, []bool{false, false, true, false}},
		{"self", 0, 1<<18 | 0x40, []bool{true, false, false, false}},
		{"all", 0, 2<<18 | 0x40, []bool{true, true, true, true}},
		{"all but self", 0, 3<<18 | 0x40, []bool{false, true, true, true}},
		{"nobody", 9 << 24, 0x40, []bool{false, false, false, false}},
	} {
		_, cpus := newSystem(4)
		cpus[0].put(regICR2, c.high)
		cpus[0].put(regICR, c.lo)
		for i, p := range cpus {
			if p.Pending() != c.want[i] {
				t.Errorf("%s: cpu %d got it: %v, want %v", c.name, i, p.Pending(), c.want[i])
			}
		}
	}
}

func TestClusterModel(t *testing.T) {
	_, cpus := newSystem(2)
	for _, p := range cpus {
		p.put(regDFR, 0)
	}
	cpus[0].put(regLDR, 0x11<<24)
	cpus[1].put(regLDR, 0x21<<24)
	cpus[0].put(regICR2, 0x21<<24)
	cpus[0].put(regICR, 1<<11|0x40)
	if cpus[0].Pending() || !cpus[1].Pending() {
		t.Error("a message to cluster 2 went elsewhere")
	}
}

func TestStartOfACPU(t *testing.T) {
	_, cpus := newSystem(2)
	cpus[0].put(regICR2, 1<<24)
	cpus[0].put(regICR, modeInit<<8|1<<14|1<<15)
	cpus[0].put(regICR, modeInit<<8|1<<15) // de-assert: nothing
	cpus[0].put(regICR, modeSIPI<<8|0x9a)
	cpus[0].put(regICR, modeNMI<<8)
	if p := cpus[1]; p.inits != 1 || p.started != 0x9a || p.nmi != 1 {
		t.Errorf("%d INIT, start-up %#x, %d NMI; want 1, 0x9a, 1", p.inits, p.started, p.nmi)
	}
	if p := cpus[0]; p.inits+p.nmi != 0 || p.started != -1 {
		t.Error("the sender got what it sent")
	}
}

func TestX2APIC(t *testing.T) {
	_, cpus := newSystem(2)
	for _, p := range cpus {
		if !p.SetMode(ModeX2APIC) {
			t.Fatal("no x2APIC mode")
		}
		p.put(regSVR, svrEnable|0xff)
	}
	if cpus[0].SetMode(ModeXAPIC) {
		t.Error("went from x2APIC to xAPIC")
	}
	if v, ok := cpus[1].ReadMSR(0x802); !ok || v != 1 {
		t.Errorf("id reads %#x, %v", v, ok)
	}
	if v, ok := cpus[1].ReadMSR(0x80d); !ok || v != 2 {
		t.Errorf("logical id reads %#x, %v, want 2", v, ok)
	}
	if !cpus[0].WriteMSR(0x830, 1<<32|0x41) || !cpus[1].Pending() {
		t.Error("an IPI in one write does not arrive")
	}
	if !cpus[0].WriteMSR(0x83f, 0x42) || cpus[0].vector(t) != 0x42 {
		t.Error("no self IPI")
	}
	for _, i := range []uint32{0x80e, 0x831, 0x802, 0x803} {
		if cpus[0].WriteMSR(i, 0) {
			t.Errorf("MSR %#x can be written", i)
		}
	}
	if cpus[0].WriteMSR(0x80b, 1) {
		t.Error("EOI takes a value that is not 0")
	}
	if _, ok := cpus[0].ReadMSR(0x80b); ok {
		t.Error("EOI can be read")
	}
}

func TestTimers(t *testing.T) {
	const vec = 0xec
	fired := func(p *processor) bool { return p.vector(t) == vec }

	_, cpus := newSystem(1)
	p := cpus[0]
	p.put(regDivide, 0xb) // by 1
	p.put(regTimer, vec)
	p.put(regInitial, 1000)
	p.now += 400
	if v := p.get(regCurrent); v != 600 {
		t.Errorf("one-shot: count %d after 400 of 1000", v)
	}
	if p.Tick(); p.Pending() {
		t.Error("one-shot: too early")
	}
	p.now += 600
	if p.Tick(); !fired(p) || p.get(regCurrent) != 0 {
		t.Error("one-shot: does not fire")
	}
	p.put(regEOI, 0)
	p.now += 5000
	if p.Tick(); p.Pending() {
		t.Error("one-shot: fires twice")
	}

	p.put(regTimer, vec|timerPeriodic<<17)
	p.put(regDivide, 0) // by 2
	p.put(regInitial, 500_000)
	for i := range 3 {
		if p.due != p.now+1_000_000 {
			t.Fatalf("periodic: due in %d", p.due-p.now)
		}
		p.now = p.due
		if p.Tick(); !fired(p) {
			t.Errorf("periodic: tick %d is missing", i)
		}
		p.put(regEOI, 0)
	}

	p.put(regTimer, vec|timerDeadline<<17)
	p.SetDeadline(p.now + 77)
	if p.due != p.now+77 {
		t.Errorf("deadline: armed for %d, now is %d", p.due, p.now)
	}
	p.now += 77
	if p.Tick(); !fired(p) || p.Deadline() != 0 {
		t.Error("deadline: does not fire, or stays")
	}
	p.SetDeadline(1)
	if p.due == 0 || p.due > p.now {
		t.Error("a deadline that has passed is not at once")
	}
}

func TestPeriodicTimerDoesNotStorm(t *testing.T) {
	_, cpus := newSystem(1)
	p := cpus[0]
	p.put(regDivide, 0xb)
	p.put(regTimer, 0xec|timerPeriodic<<17)
	p.put(regInitial, 1)
	p.now += 10
	p.Tick()
	if p.due < p.now+minPeriod {
		t.Errorf("due again after %d ns", p.due-p.now)
	}
}

// pin writes an entry of the redirection table.
func pin(n *Net, i uint32, e uint64) {
	for half := range uint32(2) {
		n.IO().Write(n, 0, 0x10+2*i+(1-half))
		n.IO().Write(n, 0x10, uint32(e>>(32*(1-half))))
	}
}

func entry(n *Net, i uint32) (e uint64) {
	for half := range uint32(2) {
		n.IO().Write(n, 0, 0x10+2*i+half)
		e |= uint64(n.IO().Read(0x10)) << (32 * half)
	}
	return e
}

func TestIOAPICEdge(t *testing.T) {
	n, cpus := newSystem(2)
	pin(n, 4, 1<<56|0x34)
	n.IO().SetLine(n, 4, true)
	n.IO().SetLine(n, 4, true) // no second edge
	if v := cpus[1].vector(t); v != 0x34 {
		t.Fatalf("vector %#x, want 0x34", v)
	}
	cpus[1].put(regEOI, 0)
	if cpus[1].Pending() || cpus[0].Pending() {
		t.Error("more than one interrupt of one edge")
	}
	n.IO().SetLine(n, 4, false)
	pin(n, 4, rteMasked|1<<56|0x34)
	n.IO().SetLine(n, 4, true)
	pin(n, 4, 1<<56|0x34)
	if cpus[1].Pending() {
		t.Error("an edge while masked is not lost")
	}
}

func TestIOAPICLevel(t *testing.T) {
	n, cpus := newSystem(1)
	p := cpus[0]
	n.IO().SetLine(n, 9, true)
	pin(n, 9, rteLevel|0x39) // unmasked while active
	if v := p.vector(t); v != 0x39 {
		t.Fatalf("vector %#x, want 0x39", v)
	}
	if entry(n, 9)&rteRemoteIRR == 0 {
		t.Error("remote IRR is clear while in service")
	}
	n.IO().SetLine(n, 9, true)
	if p.put(regEOI, 0); p.vector(t) != 0x39 {
		t.Error("does not interrupt again while the line is active")
	}
	n.IO().SetLine(n, 9, false)
	p.put(regEOI, 0)
	if p.Pending() || entry(n, 9)&rteRemoteIRR != 0 {
		t.Error("interrupts, or remote IRR is set, after the line fell")
	}
	// A switch to edge clears remote IRR (what Linux does to a stuck pin).
	n.IO().SetLine(n, 9, true)
	pin(n, 9, 0x39|rteMasked)
	if entry(n, 9)&rteRemoteIRR != 0 {
		t.Error("remote IRR outlives the switch to edge")
	}
}

func TestIOAPICRegisters(t *testing.T) {
	n, _ := newSystem(1)
	io := n.IO()
	read := func(i uint32) uint32 { io.Write(n, 0, i); return io.Read(0x10) }
	if v := read(1); v != ioapicVersion {
		t.Errorf("version %#x", v)
	}
	io.Write(n, 0, 0)
	io.Write(n, 0x10, 0xffffffff)
	if v := read(0); v != 0x0f000000 {
		t.Errorf("id %#x, want four bits of it", v)
	}
	if v := read(0x10 + 2*Pins); v != 0 {
		t.Errorf("behind the table: %#x", v)
	}
	pin(n, 0, ^uint64(0))
	if e := entry(n, 0); e&(rteRemoteIRR|1<<12) != 0 {
		t.Errorf("entry %#x: read-only bits were written", e)
	}
	io.SetLine(n, 200, true) // no such pin
}

func TestMessageSignalledInterrupts(t *testing.T) {
	n, cpus := newSystem(2)
	n.Message(0xfee01000, 0x51)
	if cpus[1].vector(t) != 0x51 {
		t.Error("not delivered to CPU 1")
	}
	n.Message(0xfee00000|2<<12|4, 0x52) // logical
	if cpus[1].vector(t); !cpus[1].has(regIRR, 0x52) && !cpus[1].has(regISR, 0x52) {
		t.Error("logical destination: not delivered to CPU 1")
	}
	n.Message(0xfed00000, 0x53)
	if cpus[0].Pending() {
		t.Error("an address outside of the range interrupts")
	}
}

func TestStateGoesOn(t *testing.T) {
	n, cpus := newSystem(1)
	p := cpus[0]
	n.Message(0xfee00000, 0x61)
	n.Message(0xfee00000, 0x41)
	p.vector(t)
	p.put(regDivide, 0xb)
	p.put(regTimer, 0xec|timerPeriodic<<17)
	p.put(regInitial, 1_000_000)
	p.now += 300_000
	pin(n, 5, 0x45)

	m, others := newSystem(1)
	q := others[0]
	q.now = p.now
	if err := q.SetState(p.State()); err != nil {
		t.Fatal(err)
	}
	m.IO().SetState(n.IO().State())
	if m.IO().State() != n.IO().State() || entry(m, 5) != 0x45 {
		t.Error("the I/O APIC is not the same")
	}
	if q.due != p.due {
		t.Errorf("timer due at %d, want %d", q.due, p.due)
	}
	q.put(regEOI, 0)
	if v := q.vector(t); v != 0x41 {
		t.Errorf("next vector %#x, want 0x41", v)
	}
	if err := q.SetState(x86.LAPIC{Regs: make([]byte, 10)}); err == nil {
		t.Error("took a state of 10 bytes")
	}
}

func FuzzRegisters(f *testing.F) {
	f.Add([]byte{0x30, 0, 0x40, 0xc0, 8, 0x38, 1, 0, 0, 0})
	f.Add([]byte{0x80, 0x10, 0, 0, 0, 0x90, 0xff, 0x80, 0, 0, 0xb0, 9, 0, 0, 0})
	f.Fuzz(func(t *testing.T, program []byte) {
		n, cpus := newSystem(2)
		for ; len(program) >= 5; program = program[5:] {
			op, p := program[0], cpus[program[1]&1]
			v := uint32(program[2])<<24 | uint32(program[3])<<8 | uint32(program[4])
			switch op >> 6 {
			case 0:
				p.put(int(op), v)
				p.get(int(op))
			case 1:
				p.WriteMSR(0x800+uint32(op&63), uint64(v))
				p.ReadMSR(0x800 + uint32(op&63))
				p.SetMode(uint8(v % 3))
			case 2:
				n.IO().Write(n, uint64(op&3)<<4, v)
				n.IO().Read(uint64(op&3) << 4)
				n.IO().SetLine(n, uint8(v), op&4 != 0)
			default:
				p.now += uint64(v)
				p.SetDeadline(p.now + uint64(op&15)*100)
				p.Tick()
				p.Acknowledge()
			}
		}
		for _, p := range cpus {
			if err := p.SetState(p.State()); err != nil {
				t.Fatal(err)
			}
		}
	})
}
