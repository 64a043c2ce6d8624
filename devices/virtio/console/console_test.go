package console

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/virtiotest"
)

// screen is a writer that can be stopped and looked at.
type screen struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(virtiotest.Timeout); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s in time", what)
		}
	}
}

func randomBytes(n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(p)
	return p
}

func bothTransports(t *testing.T, test func(t *testing.T, cfg virtiotest.Config)) {
	for name, pci := range map[string]bool{"mmio": false, "pci": true} {
		t.Run(name, func(t *testing.T) { test(t, virtiotest.Config{PCI: pci}) })
	}
}

const transferSize = 256 << 10

func TestOutputArrivesWhole(t *testing.T) {
	bothTransports(t, func(t *testing.T, cfg virtiotest.Config) {
		var out screen
		d := virtiotest.New(t, New("console0", nil, &out), cfg)
		d.Start(^uint64(0))
		want := randomBytes(transferSize)
		for p := want; len(p) > 0; {
			n := min(len(p), 1+len(p)/7)
			d.Rings[transmitQueue].Do(t, [][]byte{p[:n/2], p[n/2 : n]})
			p = p[n:]
		}
		if out.String() != string(want) {
			t.Error("the output is not what was sent")
		}
	})
}

func TestInputArrivesWhole(t *testing.T) {
	bothTransports(t, func(t *testing.T, cfg virtiotest.Config) {
		want := randomBytes(transferSize)
		d := virtiotest.New(t, New("console0", bytes.NewReader(want), nil), cfg)
		d.Start(^uint64(0))
		r := d.Rings[receiveQueue]
		for range 8 {
			r.Add(nil, 100, 4000)
		}
		r.Kick()
		var got []byte
		for len(got) < len(want) {
			req := r.Wait(t)
			got = append(got, req.In()[:req.Written]...)
			r.Submit(req)
			r.Kick()
		}
		if !bytes.Equal(got, want) {
			t.Error("the input is not what was given")
		}
	})
}

// Without input nothing moves, though there are buffers, and no goroutine of
// the device waits for the guest.
func TestInputWaitsForTheHost(t *testing.T) {
	in, feed := io.Pipe()
	defer feed.Close()
	d := virtiotest.New(t, New("console0", in, nil), virtiotest.Config{})
	d.Start(0)
	r := d.Rings[receiveQueue]
	r.Add(nil, 10)
	r.Kick()
	d.Regs.SetStatus(0) // ends Serve though the reader cannot be interrupted
	d.Start(0)
	r = d.Rings[receiveQueue]
	req := r.Add(nil, 10)
	r.Kick()
	go func() { _, _ = feed.Write([]byte("typed")) }()
	if got := r.Wait(t); got != req || string(got.In()[:got.Written]) != "typed" {
		t.Errorf("got %q", got.In())
	}
}

func TestInputBeforeTheDriverIsKept(t *testing.T) {
	d := virtiotest.New(t, New("console0", strings.NewReader("ahead"), nil), virtiotest.Config{})
	d.Start(0)
	if got := d.Rings[receiveQueue].Do(t, nil, 3); string(got) != "ahe" {
		t.Errorf("got %q", got)
	}
	d.Start(0)
	if got := d.Rings[receiveQueue].Do(t, nil, 3); string(got) != "ad" {
		t.Errorf("got %q", got)
	}
}

func TestResize(t *testing.T) {
	bothTransports(t, func(t *testing.T, cfg virtiotest.Config) {
		c := New("console0", nil, nil)
		d := virtiotest.New(t, c, cfg)
		c.Resize(80, 25)
		d.Start(^uint64(0))
		if d.Features&featureSize == 0 || d.Config16(configCols) != 80 || d.Config16(configRows) != 25 || d.Config32(configPorts) != 1 {
			t.Errorf("%d columns, %d rows, %d ports", d.Config16(configCols), d.Config16(configRows), d.Config32(configPorts))
		}
		d.Regs.Interrupt()
		before := d.Regs.Generation()
		c.Resize(132, 50)
		if d.Config16(configCols) != 132 || d.Config16(configRows) != 50 || d.Regs.Generation() == before {
			t.Error("the guest sees the old size")
		}
		if d.Regs.Interrupt()&2 == 0 {
			t.Error("no interrupt for the new size")
		}
		c.Resize(132, 50)
		if d.Regs.Interrupt() != 0 {
			t.Error("an interrupt for the same size")
		}
	})
}

func TestEmergencyWrite(t *testing.T) {
	bothTransports(t, func(t *testing.T, cfg virtiotest.Config) {
		var out screen
		d := virtiotest.New(t, New("console0", nil, &out), cfg)
		d.Regs.WriteConfig(configEmergency, []byte{'o', 0, 0, 0}) // before the driver is there
		d.Start(^uint64(0))
		d.Regs.WriteConfig(configEmergency, []byte{'k'})
		d.Regs.WriteConfig(configEmergency+1, []byte{'x'})
		d.Regs.WriteConfig(0, []byte{1, 2, 3, 4})
		if out.String() != "ok" {
			t.Errorf("put out %q", out.String())
		}
	})
}

// stuck is a writer that does not return until it is let go.
type stuck struct {
	screen
	entered chan struct{}
	let     chan struct{}
}

func (s *stuck) Write(p []byte) (int, error) {
	s.entered <- struct{}{}
	<-s.let
	return s.screen.Write(p)
}

// A terminal that takes no output does not keep the device from stopping, and
// what it did not take is not lost.
func TestStuckOutput(t *testing.T) {
	out := &stuck{entered: make(chan struct{}, 9), let: make(chan struct{}, 9)}
	d := virtiotest.New(t, New("console0", nil, out), virtiotest.Config{})
	d.Start(0)
	want := randomBytes(100 << 10)
	r := d.Rings[transmitQueue]
	req := r.Add([][]byte{want[:20<<10], want[20<<10 : 90<<10], want[90<<10:]})
	r.Kick()
	<-out.entered
	if err := d.Transport.Pause(context.Background()); err != nil {
		t.Fatal(err)
	}
	if r.Next() != req {
		t.Fatal("paused with a request in flight")
	}
	if err := d.Transport.Resume(); err != nil {
		t.Fatal(err)
	}
	close(out.let)
	waitFor(t, "output", func() bool { return out.String() == string(want) })
}

func TestOutputThatFails(t *testing.T) {
	in, out := io.Pipe()
	in.CloseWithError(errors.New("gone"))
	d := virtiotest.New(t, New("console0", nil, out), virtiotest.Config{})
	d.Start(0)
	for range 3 {
		d.Rings[transmitQueue].Do(t, [][]byte{[]byte("into the void")})
	}
}

func TestSaveAndRestore(t *testing.T) {
	bothTransports(t, func(t *testing.T, cfg virtiotest.Config) {
		c := New("console0", strings.NewReader("before"), nil)
		d := virtiotest.New(t, c, cfg)
		c.Resize(90, 30)
		d.Start(^uint64(0))
		if got := d.Rings[receiveQueue].Do(t, nil, 2); string(got) != "be" {
			t.Fatalf("got %q", got)
		}
		var out screen
		d.SaveRestore(New("console0", strings.NewReader(" after"), &out))
		if d.Config16(configCols) != 90 || d.Config16(configRows) != 30 {
			t.Error("another size")
		}
		var got []byte
		for len(got) < len("fore after") {
			got = append(got, d.Rings[receiveQueue].Do(t, nil, 32)...)
		}
		if string(got) != "fore after" {
			t.Errorf("got %q", got)
		}
		d.Rings[transmitQueue].Do(t, [][]byte{[]byte("out")})
		if out.String() != "out" {
			t.Errorf("put out %q", out.String())
		}
	})
}

func TestRestoreRefusesWhatCannotBe(t *testing.T) {
	d := New("console0", nil, nil)
	for _, s := range []string{"", "{}", `{"Version":2}`, `{"Version":1,"Input":"` + strings.Repeat("AAAA", inputSize/3+1) + `"}`} {
		if err := d.SetState([]byte(s)); err == nil {
			t.Errorf("accepted %.40q", s)
		}
	}
}

func TestBuffersOfTheWrongKind(t *testing.T) {
	for name, add := range map[string]func(d *virtiotest.Driver) *virtiotest.Ring{
		"output to write to": func(d *virtiotest.Driver) *virtiotest.Ring { d.Rings[1].Add(nil, 8); return d.Rings[1] },
		"input to read":      func(d *virtiotest.Driver) *virtiotest.Ring { d.Rings[0].Add([][]byte{{1}}, 8); return d.Rings[0] },
	} {
		t.Run(name, func(t *testing.T) {
			d := virtiotest.New(t, New("console0", strings.NewReader("x"), nil), virtiotest.Config{})
			d.Start(0)
			add(d).Kick()
			waitFor(t, "NEEDS_RESET", d.NeedsReset)
		})
	}
}

func FuzzConsole(f *testing.F) {
	virtiotest.Fuzz(f, func(testing.TB) virtio.Device {
		return New("console0", strings.NewReader(strings.Repeat("typed", 100)), io.Discard)
	})
}
