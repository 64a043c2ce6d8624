package gdb

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// fakeTarget is a machine without CPUs: what is done to it is noted.
type fakeTarget struct {
	mem    *memory.Guest
	regs   [2]Registers
	stops  chan Stop
	log    []string
	failBP error
}

func newFake(t testing.TB) *fakeTarget {
	mem, err := memory.New(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mem.Close() })
	f := &fakeTarget{mem: mem, stops: make(chan Stop, 4)}
	for i := range f.regs {
		f.regs[i].RIP = uint64(0x1000 * (i + 1))
		f.regs[i].RAX = 0x1122334455667788
		f.regs[i].CS.Selector = 8
		f.regs[i].HasFX = i == 0
	}
	return f
}

func (f *fakeTarget) note(format string, a ...any) error {
	f.log = append(f.log, fmt.Sprintf(format, a...))
	return nil
}

func (f *fakeTarget) CPUs() int                   { return len(f.regs) }
func (f *fakeTarget) Memory() *memory.Guest       { return f.mem }
func (f *fakeTarget) Pause(context.Context) error { return f.note("pause") }
func (f *fakeTarget) Resume() error               { return f.note("resume") }
func (f *fakeTarget) Stops() <-chan Stop          { return f.stops }
func (f *fakeTarget) Kill() error                 { return f.note("kill") }
func (f *fakeTarget) Insert(b Breakpoint) error   { _ = f.note("insert %v", b); return f.failBP }
func (f *fakeTarget) Remove(b Breakpoint) error   { return f.note("remove %v", b) }
func (f *fakeTarget) Registers(cpu int) (*Registers, error) {
	r := f.regs[cpu]
	return &r, nil
}

func (f *fakeTarget) SetRegisters(cpu int, r *Registers) error {
	f.regs[cpu] = *r
	return nil
}

func (f *fakeTarget) Step(_ context.Context, cpu int) (Stop, error) {
	f.regs[cpu].RIP++
	return Stop{CPU: cpu, Reason: Stepped}, f.note("step %d", cpu)
}

// client is GDB's side.
type client struct {
	t  *testing.T
	c  net.Conn
	sc *scanner
}

func (c *client) send(payload string) {
	c.t.Helper()
	if _, err := c.c.Write(frame([]byte(payload))); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) receive() string {
	c.t.Helper()
	_ = c.c.SetReadDeadline(time.Now().Add(10 * time.Second))
	ev, err := c.sc.next()
	if err != nil {
		c.t.Fatal(err)
	}
	return string(ev.payload)
}

func (c *client) ask(payload, want string) {
	c.t.Helper()
	c.send(payload)
	if got := c.receive(); got != want {
		c.t.Errorf("%s: %q, want %q", payload, got, want)
	}
}

// dial serves f on a listener and connects; the returned function ends it all
// and returns what Serve did.
func dial(t *testing.T, f *fakeTarget) (*client, net.Listener, func() error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, f) }()
	t.Cleanup(cancel)
	return connect(t, l), l, func() error { cancel(); return <-done }
}

func connect(t *testing.T, l net.Listener) *client {
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &client{t, c, newScanner(c)}
}

func TestConversation(t *testing.T) {
	f := newFake(t)
	c, _, end := dial(t, f)
	c.send("qSupported:multiprocess+;swbreak+;hwbreak+")
	if got := c.receive(); !strings.Contains(got, "PacketSize=3fff") || !strings.Contains(got, "qXfer:features:read+") {
		t.Error(got)
	}
	c.ask("QStartNoAckMode", "OK")
	c.ask("?", "T02thread:1;")
	c.ask("qC", "QC1")
	c.ask("qfThreadInfo", "m1,2")
	c.ask("qsThreadInfo", "l")
	c.ask("qThreadExtraInfo,2", fmt.Sprintf("%x", "CPU 1 (real mode)"))
	c.ask("qAttached", "1")
	c.ask("vMustReplyEmpty", "")
	c.ask("vCont?", "vCont;c;C;s;S")
	c.ask("T3", errInvalid)
	c.ask("T2", "OK")
	c.ask("s", "T05thread:1;")
	c.ask("vCont;s:2;c", "T05thread:2;")
	c.ask("qC", "QC2")
	c.ask("X10,0:", "OK")
	c.ask("!", "")
	c.ask("D", "OK")
	if err := end(); err != nil {
		t.Error(err)
	}
	if got := strings.Join(f.log, ","); got != "pause,step 0,step 1,resume" {
		t.Error(got)
	}
}

func TestRegisters(t *testing.T) {
	f := newFake(t)
	c, _, _ := dial(t, f)
	c.ask("p0", "8877665544332211")
	c.ask("p10", "0010000000000000") // rip
	c.ask("p12", "08000000")         // cs
	c.ask("Hg2", "OK")
	c.ask("p10", "0020000000000000")
	c.ask("p18", strings.Repeat("x", 20)) // st0, of which this CPU says nothing
	c.ask("P0=0100000000000000", "OK")
	c.ask("P12=10000000", "E.cs cannot be set")
	c.ask("P18="+strings.Repeat("0", 20), "E.st0 cannot be set")
	c.ask("P0=01", errInvalid)
	c.ask("pffff", errInvalid)
	c.ask("pzz", errInvalid)
	if f.regs[1].RAX != 1 || f.regs[0].RAX == 1 {
		t.Error("the register of the wrong CPU was set")
	}
	c.send("g")
	all := c.receive()
	want := 0
	for _, r := range registers() {
		want += r.bits / 4
	}
	if len(all) != want {
		t.Errorf("g has %d digits, the registers need %d", len(all), want)
	}
	c.ask("G"+"0200000000000000"+all[16:], "OK")
	if f.regs[1].RAX != 2 {
		t.Errorf("RAX %#x", f.regs[1].RAX)
	}
	c.ask("G00", errInvalid)
}

func TestMemory(t *testing.T) {
	f := newFake(t)
	// CPU 0 has paging: linear 0x200000 is 0x3000; CPU 1 has none.
	for at, v := range map[memory.Addr]uint64{0x10000: 0x11003, 0x11000: 0x12003, 0x12008: 0x13003, 0x13000: 0x3003} {
		if err := f.mem.WriteAt(binary.LittleEndian.AppendUint64(nil, v), at); err != nil {
			t.Fatal(err)
		}
	}
	f.regs[0].CR0, f.regs[0].CR3, f.regs[0].CR4, f.regs[0].EFER = x86.CR0PE|x86.CR0PG, 0x10000, x86.CR4PAE, x86.EFERLMA
	c, _, _ := dial(t, f)
	c.ask("M200ffe,2:abcd", "OK")
	c.ask("m200ffe,2", "abcd")
	c.ask("m200ffe,10", "abcd") // the page ends there
	c.ask("m201000,1", errFault)
	c.ask("M200fff,2:ffff", errFault)
	c.ask("m200fff,1", "cd") // nothing was written
	c.ask("m8000000000000000,1", errFault)
	c.ask("M200000,2:zz", errInvalid)
	c.ask("M200000,3:0000", errInvalid)
	c.ask("m200000", errInvalid)
	c.ask("X200000,4:\x01#$}", "OK")
	c.ask("m200000,4", "0123247d")
	c.ask("Hg2", "OK")
	c.ask("m3ffe,2", "abcd")
	c.ask("mffffffff,8", errFault)
	c.send("m0,ffffffffffffffff")
	if got := c.receive(); len(got) > maxPacket {
		t.Errorf("a reply of %d bytes", len(got))
	}
}

func TestBreakpointsAndRunning(t *testing.T) {
	f := newFake(t)
	c, _, end := dial(t, f)
	c.send("qSupported:swbreak+;hwbreak+")
	c.receive()
	c.ask("Z0,1234,1", "OK")
	c.ask("Z0,1234,1", "OK") // again: once is enough
	c.ask("Z2,2000,8", "OK")
	c.ask("z2,2000,8", "OK")
	c.ask("Z9,0,1", "")
	c.ask("Z0,zz,1", errInvalid)
	f.failBP = ErrUnsupported
	c.ask("Z3,2000,8", "")
	f.failBP = errors.New("all four are in use")
	c.ask("Z1,2000,1", "E.all four are in use")

	c.send("c")
	f.stops <- Stop{CPU: 1, Reason: AtSoft}
	if got := c.receive(); got != "T05thread:2;swbreak:;" {
		t.Error(got)
	}
	c.send("vCont;c")
	f.stops <- Stop{CPU: 0, Reason: AtWatch, Watch: Breakpoint{Kind: AccessWatch, Addr: 0x99}}
	if got := c.receive(); got != "T05thread:1;awatch:99;" {
		t.Error(got)
	}
	c.send("c5000") // with an address
	if _, err := c.c.Write([]byte{3}); err != nil {
		t.Fatal(err)
	}
	if got := c.receive(); got != "T02thread:1;" {
		t.Error(got)
	}
	if f.regs[0].RIP != 0x5000 {
		t.Errorf("RIP %#x", f.regs[0].RIP)
	}
	_ = c.c.Close() // without a word
	if err := end(); err != nil {
		t.Error(err)
	}
	want := "pause,insert {0 4660 1},insert {2 8192 8},remove {2 8192 8},insert {3 8192 8},insert {1 8192 1}," +
		"resume,resume,resume,pause,remove {0 4660 1},resume"
	if got := strings.Join(f.log, ","); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

func TestMachineEnds(t *testing.T) {
	for st, want := range map[Stop]string{{Reason: Exited, Status: 3}: "W03", {Reason: Signaled}: "X06"} {
		f := newFake(t)
		c, _, end := dial(t, f)
		c.ask("qC", "QC1")
		c.send("c")
		f.stops <- st
		if got := c.receive(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		if err := end(); err != nil {
			t.Error(err)
		}
	}
}

// A machine that has ended before the debugger was there does not run on.
func TestAttachToWhatHasEnded(t *testing.T) {
	f := newFake(t)
	f.stops <- Stop{Reason: Exited, Status: 1}
	c, _, _ := dial(t, f)
	c.ask("?", "W01")
	c.ask("c", "W01")
}

func TestKill(t *testing.T) {
	for _, packet := range []string{"k", "vKill;1"} {
		f := newFake(t)
		c, _, end := dial(t, f)
		c.send(packet)
		if packet != "k" {
			c.receive()
		}
		if _, err := io.ReadAll(c.c); err != nil {
			t.Error(err)
		}
		_ = end()
		if got := strings.Join(f.log, ","); got != "pause,kill" {
			t.Errorf("%s: %s", packet, got)
		}
	}
}

func TestSecondDebugger(t *testing.T) {
	f := newFake(t)
	first, l, _ := dial(t, f)
	first.ask("?", "T02thread:1;")
	second := connect(t, l)
	second.ask("?", "E.another debugger is attached to this machine")
	first.ask("D", "OK")
	for range 100 { // the place becomes free in a moment
		third := connect(t, l)
		third.send("?")
		if third.receive() == "T02thread:1;" {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("nobody else can attach")
}

func TestBadPacketsAreAskedForAgain(t *testing.T) {
	f := newFake(t)
	c, _, _ := dial(t, f)
	if _, err := c.c.Write([]byte("$qC#00")); err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if _, err := io.ReadFull(c.c, b[:]); err != nil || b[0] != '-' {
		t.Errorf("%q %v", b, err)
	}
	c.ask("qC", "QC1")
	if _, err := c.c.Write([]byte("-")); err != nil {
		t.Fatal(err)
	}
	if got := c.receive(); got != "QC1" {
		t.Errorf("the repeat is %q", got)
	}
	c.ask(strings.Repeat("m", maxPacket+1)+"", "") // answered by a -, not a packet
}

func TestMonitor(t *testing.T) {
	f := newFake(t)
	c, _, _ := dial(t, f)
	for cmd, want := range map[string]string{"": "monitor walk", "walk 0x1000": "no paging", "phys 0x0 4": "0x0: 00 00 00 00",
		"phys 0xfffffffff 1": "no 1 bytes", "walk x": "not an address", "phys 0 999": "at most 256"} {
		c.send("qRcmd," + fmt.Sprintf("%x", cmd))
		text, _ := parseHex([]byte(c.receive()))
		if !strings.Contains(string(text), want) {
			t.Errorf("%q: %q", cmd, text)
		}
	}
}

func TestDescriptionIsReadInParts(t *testing.T) {
	f := newFake(t)
	c, _, _ := dial(t, f)
	var got strings.Builder
	for {
		c.send(fmt.Sprintf("qXfer:features:read:target.xml:%x,1ff", got.Len()))
		part := c.receive()
		got.WriteString(part[1:])
		if part[0] == 'l' {
			break
		}
	}
	if got.String() != targetXML() {
		t.Error("the parts do not add up")
	}
	c.ask("qXfer:features:read:other.xml:0,fff", "")
	c.ask("qXfer:features:read:target.xml:zz", errInvalid)
}

func TestFrameAndScannerAgree(t *testing.T) {
	for _, p := range []string{"", "OK", "a$b#c}d*e", string([]byte{0, 0x20, 0x7d, 0xff})} {
		ev, err := newScanner(bytes.NewReader(frame([]byte(p)))).next()
		if err != nil || ev.kind != evPacket || string(ev.payload) != p {
			t.Errorf("%q: %v %q", p, err, ev.payload)
		}
	}
}

// pipe is a connection whose input is given and whose output is lost.
type pipe struct{ io.Reader }

func (pipe) Write(p []byte) (int, error)      { return len(p), nil }
func (pipe) Close() error                     { return nil }
func (pipe) LocalAddr() net.Addr              { return nil }
func (pipe) RemoteAddr() net.Addr             { return nil }
func (pipe) SetDeadline(time.Time) error      { return nil }
func (pipe) SetReadDeadline(time.Time) error  { return nil }
func (pipe) SetWriteDeadline(time.Time) error { return nil }

// FuzzSession says anything to the stub: it may neither panic nor hang.
func FuzzSession(f *testing.F) {
	for _, p := range []string{"qSupported:swbreak+", "?", "g", "p10", "P0=0100000000000000", "m0,20", "M0,2:abcd", "X0,1:}]", "Z0,10,1",
		"z0,10,1", "vCont;s:1;c", "Hg-1", "qXfer:features:read:target.xml:0,fff", "qRcmd,77616c6b2030", "T2", "D", "s", "qThreadExtraInfo,1"} {
		f.Add(frame([]byte(p)))
	}
	f.Add([]byte("$#00+-\x03$}#7d$g#67"))
	fake := newFake(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		fake.log = nil
		_ = Session(context.Background(), pipe{bytes.NewReader(in)}, fake)
	})
}
