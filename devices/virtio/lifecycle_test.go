package virtio_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/virtiotest"
)

func TestProtocolErrorNeedsReset(t *testing.T) {
	bothTransports(t, func(t *testing.T, cfg virtiotest.Config) {
		var logged atomic.Int32
		cfg.Options.Log = func(err error) {
			if strings.Contains(err.Error(), "echo0") {
				logged.Add(1)
			}
		}
		e := newEcho()
		d := virtiotest.New(t, e, cfg)
		for range 20 {
			d.Start(0)
			d.Rings[1].SetDescriptor(0, virtiotest.Descriptor{Addr: 1 << 40, Len: 1})
			d.Rings[1].Offer(0)
			d.Rings[1].Kick()
			waitFor(t, "NEEDS_RESET", d.NeedsReset)
			waitFor(t, "the configuration interrupt", func() bool { return d.Regs.Interrupt()&2 != 0 })
		}
		if n := logged.Load(); n == 0 || n > 6 {
			t.Errorf("%d lines logged for 20 errors, want a few", n)
		}
		d.Start(0)
		d.Rings[1].Do(t, [][]byte{{1}}, 1)
	})
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(virtiotest.Timeout); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s in time", what)
		}
	}
}

// A reset returns when the device has let go of guest memory.
func TestResetWithRequestsInFlight(t *testing.T) {
	bothTransports(t, func(t *testing.T, cfg virtiotest.Config) {
		e := newEcho()
		e.hold = make(chan struct{})
		d := virtiotest.New(t, e, cfg)
		for range 5 {
			d.Start(0)
			r := d.Rings[0]
			for range 4 {
				r.Add([][]byte{{1}}, 1)
			}
			r.Kick()
			waitFor(t, "a request in flight", func() bool { return d.Transport.Inspect().Queues[0].InFlight > 0 })
			done := make(chan struct{})
			go func() { // requests end one by one, some before the reset and some not at all
				for {
					select {
					case e.hold <- struct{}{}:
					case <-done:
						return
					}
				}
			}()
			d.Regs.SetStatus(0)
			close(done)
			if n := e.serving.Load(); n != 0 || d.Regs.Status() != 0 {
				t.Fatalf("%d at work after reset, status %#x", n, d.Regs.Status())
			}
		}
		if e.resets < 5 {
			t.Errorf("the device was told of %d resets", e.resets)
		}
	})
}

// A device that does not let go in time keeps the driver out, but not the CPU.
func TestResetThatTakesTooLong(t *testing.T) {
	bothTransports(t, func(t *testing.T, cfg virtiotest.Config) {
		cfg.Options.ResetTimeout = time.Millisecond
		e := newEcho()
		e.hold = make(chan struct{})
		d := virtiotest.New(t, e, cfg)
		d.Start(0)
		r := d.Rings[0]
		r.Add([][]byte{{1}}, 1)
		r.Kick()
		waitFor(t, "a request in flight", func() bool { return d.Transport.Inspect().Queues[0].InFlight > 0 })
		d.Regs.SetStatus(0)
		if d.Regs.Status() == 0 {
			t.Fatal("the reset is done, and the request is not")
		}
		d.Regs.SetStatus(3)
		d.Regs.SetDriverFeatures(virtio.FeatureVersion1)
		d.Regs.SetStatus(15)
		if s := d.Regs.Status(); s&virtio.StatusDriverOK != 0 {
			t.Errorf("status %#x during the reset", s)
		}
		close(e.hold)
		waitFor(t, "end of the reset", func() bool { return d.Regs.Status() == 0 })
		if r.Next() != nil {
			t.Error("the ring was written after the reset")
		}
		d.Start(0)
		d.Rings[0].Do(t, [][]byte{{1}}, 1)
	})
}

func TestPauseAndResume(t *testing.T) {
	bothTransports(t, func(t *testing.T, cfg virtiotest.Config) {
		e := newEcho()
		d := virtiotest.New(t, e, cfg)
		d.Start(allFeatures)
		r := d.Rings[0]
		r.Indirect = true
		for i := range 3 {
			r.Do(t, [][]byte{{byte(i)}}, 1)
			if err := d.Transport.Pause(context.Background()); err != nil {
				t.Fatal(err)
			}
			if e.serving.Load() != 0 || !d.Transport.Inspect().Paused || d.Transport.Inspect().Serving {
				t.Fatal("at work while paused")
			}
			req := r.Add([][]byte{{7}}, 1)
			r.Kick()
			if err := d.Transport.Resume(); err != nil {
				t.Fatal(err)
			}
			if r.Wait(t) != req {
				t.Fatal("not the request")
			}
			r.Release(req)
		}
		if err := d.Transport.Resume(); err != nil {
			t.Error(err)
		}
	})
}

// A patient device that was paused takes what is in the ring when it is rung,
// and not before: also one that is made again from its state.
func TestPatientDeviceWaitsForTheRing(t *testing.T) {
	bothTransports(t, func(t *testing.T, cfg virtiotest.Config) {
		cfg.Options.Patient = true
		e := newEcho()
		d := virtiotest.New(t, e, cfg)
		d.Start(allFeatures)
		r := d.Rings[0]
		r.Do(t, [][]byte{{1}}, 1)
		for _, restored := range []bool{false, true} {
			time.Sleep(100 * time.Millisecond) // it waits by now: patience is for doorbells that tell
			if err := d.Transport.Pause(context.Background()); err != nil {
				t.Fatal(err)
			}
			if restored {
				state, err := d.Transport.State()
				if err == nil {
					err = d.Transport.SetState(state)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			served := e.served.Load()
			req := r.Add([][]byte{{7}}, 1)
			if err := d.Transport.Resume(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond)
			if n := e.served.Load(); n != served {
				t.Errorf("restored %v: %d requests were served before the ring", restored, n-served)
			}
			r.Kick()
			if r.Wait(t) != req {
				t.Fatal("not the request")
			}
			r.Release(req)
		}
	})
}

func TestPauseGivesUpWithItsContext(t *testing.T) {
	e := newEcho()
	e.hold = make(chan struct{})
	d := virtiotest.New(t, e, virtiotest.Config{})
	d.Start(0)
	req := d.Rings[0].Add([][]byte{{1}}, 1)
	d.Rings[0].Kick()
	waitFor(t, "a request in flight", func() bool { return d.Transport.Inspect().Queues[0].InFlight > 0 })
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if err := d.Transport.Pause(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("pause: %v", err)
	}
	if _, err := d.Transport.State(); err == nil {
		t.Error("a state with a request in flight")
	}
	close(e.hold)
	if err := d.Transport.Resume(); err != nil {
		t.Fatal(err)
	}
	if d.Rings[0].Wait(t) != req {
		t.Error("not the request")
	}
	d.Rings[0].Do(t, [][]byte{{1}}, 1)
}

func TestSaveAndRestore(t *testing.T) {
	bothTransports(t, func(t *testing.T, cfg virtiotest.Config) {
		for name, features := range ringFeatures {
			d := virtiotest.New(t, newEcho(), cfg)
			d.Start(features | echoFeature)
			for i := range 20 {
				for _, r := range d.Rings {
					if got := r.Do(t, [][]byte{{'a', byte(i)}}, 2); string(got) != string([]byte{'a', byte(i)}) {
						t.Fatalf("%s: %q", name, got)
					}
				}
				if i%7 != 3 {
					continue
				}
				before := d.Transport.Inspect()
				e := newEcho()
				d.SaveRestore(e)
				after := d.Transport.Inspect()
				if e.kept.Load() != 'a' || after.Status != before.Status || after.Negotiated != before.Negotiated ||
					after.InterruptStatus != before.InterruptStatus || after.ConfigGeneration != before.ConfigGeneration {
					t.Errorf("%s: restored %+v of %+v", name, after, before)
				}
				for j := range after.Queues {
					if a, b := after.Queues[j], before.Queues[j]; a.NextAvail != b.NextAvail || a.UsedIdx != b.UsedIdx || a.Vector != b.Vector {
						t.Errorf("%s: queue %+v of %+v", name, a, b)
					}
				}
			}
		}
	})
}

// A saved state is a file that anyone may have written.
func TestRestoreRefusesWhatCannotBe(t *testing.T) {
	bothTransports(t, func(t *testing.T, cfg virtiotest.Config) {
		e := newEcho()
		d := virtiotest.New(t, e, cfg)
		d.Start(0)
		d.Rings[0].Do(t, [][]byte{{'a'}}, 1)
		if _, err := d.Transport.State(); err == nil {
			t.Error("saved while running")
		}
		if err := d.Transport.Pause(context.Background()); err != nil {
			t.Fatal(err)
		}
		good, err := d.Transport.State()
		if err != nil {
			t.Fatal(err)
		}
		for _, change := range [][2]string{
			{`"Version":1`, `"Version":2`}, {`"ID":42`, `"ID":2`}, {`"Status":15`, `"Status":4`}, {`"Status":15`, `"Status":47`},
			{`"DriverFeatures":4294967296`, `"DriverFeatures":4294967297`}, {`"Size":16`, `"Size":32`},
			{`"Size":16`, `"Size":15`}, {`"Desc":`, `"Desc":999999999`}, {`"Queues":[{`, `"Queues":[{},{`}, {`"Device":97`, `"Device":970`}, {`{`, ``},
		} {
			bad := bytes.Replace(good, []byte(change[0]), []byte(change[1]), 1)
			if bytes.Equal(bad, good) {
				t.Errorf("%q is not in the state %s", change[0], good)
			}
			if err := d.Transport.SetState(bad); err == nil {
				t.Errorf("%s: accepted", change[1])
			}
		}
		if err := d.Transport.SetState(good); err != nil {
			t.Fatal(err)
		}
		if err := d.Transport.Resume(); err != nil {
			t.Fatal(err)
		}
		d.Rings[0].Do(t, [][]byte{{1}}, 1)
	})
}

// The device can be looked at while a pause waits for it.
func TestInspectDuringPause(t *testing.T) {
	e := newEcho()
	e.hold = make(chan struct{})
	d := virtiotest.New(t, e, virtiotest.Config{})
	d.Start(0)
	d.Rings[0].Add([][]byte{{1}}, 1)
	d.Rings[0].Kick()
	waitFor(t, "a request in flight", func() bool { return d.Transport.Inspect().Queues[0].InFlight > 0 })
	done := make(chan error)
	go func() { done <- d.Transport.Pause(context.Background()) }()
	waitFor(t, "pause", func() bool { return d.Transport.Inspect().Paused })
	close(e.hold)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// savedState is what a device with a driver leaves.
func savedState(t testing.TB, pci bool) []byte {
	d := virtiotest.New(t, newEcho(), virtiotest.Config{PCI: pci, Memory: 1 << 20})
	d.Start(0)
	if err := d.Transport.Pause(context.Background()); err != nil {
		t.Fatal(err)
	}
	s, err := d.Transport.State()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// FuzzSetState restores files that nobody has checked, bytes as they come or a
// good file with other values in it, and goes on with what was accepted.
func FuzzSetState(f *testing.F) {
	good := map[bool][]byte{false: savedState(f, false), true: savedState(f, true)}
	for pci, s := range good {
		f.Add(s, pci, uint8(0), uint64(0), uint16(0), uint64(0), uint64(0), uint16(0))
		f.Add([]byte(nil), pci, uint8(15), uint64(virtio.FeatureVersion1), uint16(16), uint64(0x1000), uint64(0x3000), uint16(1))
		f.Add([]byte(nil), pci, uint8(15), uint64(virtio.FeatureVersion1|virtio.FeatureEventIdx), uint16(8), uint64(1<<20-128), uint64(1<<63), uint16(0xfffe))
	}
	f.Fuzz(func(t *testing.T, raw []byte, pci bool, status uint8, features uint64, size uint16, desc, ring uint64, index uint16) {
		if len(raw) == 0 {
			var s virtio.State
			if err := json.Unmarshal(good[pci], &s); err != nil {
				t.Fatal(err)
			}
			s.Status, s.DriverFeatures, s.QueueSel, s.ConfigVector = status, features, uint32(desc), index
			s.Queues[0] = virtio.QueueState{Size: size, Ready: true, Desc: desc, Avail: ring, Used: ring + 0x1000, Vector: index, NextAvail: index, NextUsed: index + size}
			raw, _ = json.Marshal(s)
		}
		d := virtiotest.New(t, newEcho(), virtiotest.Config{PCI: pci, Memory: 1 << 20})
		if err := d.Transport.Pause(context.Background()); err != nil {
			t.Fatal(err)
		}
		if d.Transport.SetState(raw) == nil {
			d.Transport.Inspect()
			if err := d.Transport.Resume(); err != nil {
				t.Fatal(err)
			}
			d.Regs.Notify(0)
			d.Regs.QueueReady(0)
		}
		d.Regs.SetStatus(0)
		if s := d.Transport.Inspect().Status; s != 0 {
			t.Fatalf("status %#x after reset", s)
		}
	})
}

// A request all the way: notification, Serve's wake-up, answer, interrupt.
func BenchmarkRoundTrip(b *testing.B) {
	for name, cfg := range map[string]virtiotest.Config{"mmio": {Doorbells: true}, "pci": {PCI: true, Doorbells: true}} {
		b.Run(name, func(b *testing.B) {
			d := virtiotest.New(b, newEcho(), cfg)
			d.Start(virtio.FeatureEventIdx)
			r := d.Rings[0]
			req := r.Prepare([][]byte{make([]byte, 64)}, 64)
			b.ReportAllocs()
			for b.Loop() {
				r.Submit(req)
				r.Kick()
				r.Wait(b)
			}
		})
	}
}
