package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
)

func testMeta() *trace.Meta {
	return &trace.Meta{
		CPUs: 1, Memory: 8 << 20, Began: time.Unix(1e9, 0), Sources: []string{"vcpu0", "disk", "machine"},
		Devices: []trace.Device{
			{Name: "COM1", Type: "serial", Port: true, Base: 0x3f8, Size: 8, Source: -1},
			{Name: "PCI", Type: "pci-ports", Port: true, Base: 0xcf8, Size: 8, Source: -1},
			{Name: "disk", Type: "virtio-mmio", Base: 0xd0000000, Size: 4096, Virtio: uint32(virtio.IDBlock), Source: 1},
		},
		States: map[string]json.RawMessage{},
		Virtio: map[string]trace.VirtioSpec{"disk": {ID: uint32(virtio.IDBlock), QueueMax: []uint16{8}, Config: []byte{1, 2, 3, 4, 5, 6, 7, 8}}},
	}
}

func recorded(t testing.TB, meta *trace.Meta, end *trace.End, events ...trace.Event) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := trace.NewWriter(&b, meta)
	if err == nil {
		err = w.Events(events)
	}
	if err == nil && end != nil {
		err = w.End(end)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func port(write bool, addr, value uint64) trace.Event {
	return trace.Event{Kind: trace.KindIO, Addr: addr, Value: value, Size: 1, Count: 1, Write: write, Aux: addr - 0x3f8}
}

func mmio(write bool, off, value uint64) trace.Event {
	return trace.Event{Kind: trace.KindMMIO, Addr: 0xd0000000 + off, Value: value, Size: 4, Count: 1, Write: write, Aux: 2<<32 | off}
}

func open(t *testing.T, b []byte) *Player {
	t.Helper()
	p, err := Open(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// A read that the device answers otherwise when it is played again is found,
// and forgotten when one goes back before it.
func TestDifferences(t *testing.T) {
	p := open(t, recorded(t, testMeta(), nil, port(true, 0x3ff, 0x5a), port(false, 0x3ff, 0x5a), port(false, 0x3ff, 0x77)))
	if err := p.Go(3); err != nil {
		t.Fatal(err)
	}
	if d := p.Differences(); len(d) != 1 || d[0] != (Difference{2, 0x77, 0x5a}) {
		t.Fatalf("%+v", d)
	}
	if err := p.Go(2); err != nil || len(p.Differences()) != 0 || p.At() != 2 {
		t.Fatalf("%v, %+v at %d", err, p.Differences(), p.At())
	}
	if _, err := p.Check(); err == nil {
		t.Error("a recording without an end was compared with one")
	}
}

// Interrupts and what queues did become part of the device's state, and a reset
// ends that.
func TestQueuesAndInterrupts(t *testing.T) {
	const none = trace.NoCPU
	p := open(t, recorded(t, testMeta(), nil,
		trace.Event{Kind: trace.KindIRQ, CPU: none, Source: 1}, mmio(false, 0x60, 1), mmio(true, 0x64, 1), mmio(false, 0x60, 0),
		trace.Event{Kind: trace.KindIRQ, CPU: none, Source: 1, Addr: ^uint64(0)}, mmio(false, 0xfc, 1), mmio(true, 0x70, 0), mmio(false, 0x60, 0)))
	if err := p.Go(len(p.Items)); err != nil || len(p.Differences()) != 0 {
		t.Fatalf("%v, %+v", err, p.Differences())
	}
}

// Going back over keyframes gives the states that going forwards gave.
func TestBackAndForth(t *testing.T) {
	var events []trace.Event
	for i := range uint64(2*keyEvery + 100) {
		events = append(events, port(true, 0x3ff, i&0xff))
	}
	p := open(t, recorded(t, testMeta(), nil, events...))
	states := make(map[int]string)
	for _, n := range []int{10, keyEvery, keyEvery + 1, 2*keyEvery + 50} {
		if err := p.Go(n); err != nil {
			t.Fatal(err)
		}
		s, err := p.State("COM1")
		if err != nil {
			t.Fatal(err)
		}
		states[n] = string(s)
	}
	for _, n := range []int{keyEvery + 1, 10, 2*keyEvery + 50, keyEvery} {
		if err := p.Go(n); err != nil {
			t.Fatal(err)
		}
		if s, err := p.State("COM1"); err != nil || string(s) != states[n] {
			t.Errorf("after %d: %s, %v; was %s", n, s, err, states[n])
		}
	}
}

func TestWhatCannotBeReplayed(t *testing.T) {
	trouble := map[string]func(*trace.Meta){
		"a trace":         func(m *trace.Meta) { m.States = nil },
		"no memory":       func(m *trace.Meta) { m.Memory = 0 },
		"unknown device":  func(m *trace.Meta) { m.Devices[0].Type = "flux capacitor" },
		"overlap":         func(m *trace.Meta) { m.Devices[1].Base = 0x3f8 },
		"no description":  func(m *trace.Meta) { m.Virtio = nil },
		"PCI without PCI": func(m *trace.Meta) { m.Devices = m.Devices[2:]; m.Devices[0].Type = "virtio-pci" },
		"a foreign state": func(m *trace.Meta) { m.States["COM1"] = []byte(`{"version":99}`) },
	}
	for name, f := range trouble {
		m := testMeta()
		f(m)
		if p, err := Open(bytes.NewReader(recorded(t, m, nil))); err == nil {
			_ = p.Close()
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := Open(bytes.NewReader(nil)); !errors.Is(err, trace.ErrNotStream) {
		t.Errorf("nothing: %v", err)
	}
}

// Whatever a file holds, it is replayed or refused.
func FuzzReplay(f *testing.F) {
	f.Add(recorded(f, testMeta(), &trace.End{}, port(true, 0x3f8, 'x'), mmio(true, 0x70, 3), trace.Event{Kind: trace.KindPop, Source: 1, CPU: trace.NoCPU}))
	pci := testMeta()
	pci.Devices[2].Type, pci.Devices[2].Base, pci.Devices[2].Size = "virtio-pci", 0, 0
	f.Add(recorded(f, pci, nil, trace.Event{Kind: trace.KindIO, Addr: 0xcf8, Value: 0x80000800, Size: 4, Count: 1, Write: true, Aux: 1 << 32}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<16 {
			return
		}
		p, err := Open(bytes.NewReader(b))
		if err != nil {
			return
		}
		defer p.Close()
		if p.Go(len(p.Items)) == nil {
			_, _ = p.Check()
		}
		_ = p.Go(0)
	})
}
