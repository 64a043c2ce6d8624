package pci

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/bus"
)

// ram is memory behind a BAR.
type ram []byte

func (r ram) Read(off uint64, p []byte)  { copy(p, r[off:]) }
func (r ram) Write(off uint64, p []byte) { copy(r[off:], p) }

const (
	window     = 0xc000_0000
	windowSize = 0x10_0000
	wideWindow = 0x10_0000_0000
)

// machine is a bus with two functions: one with a BAR of 4 KiB, one with a
// 64-bit BAR of 64 KiB at register 2 and MSI-X.
type machine struct {
	t     testing.TB
	mmio  *bus.Bus
	host  *Host
	ecam  bus.Device
	a, b  *Function
	moves []uint64
	msix  *MSIX
	msis  []*fakeMSI
}

func newMachine(t testing.TB) *machine {
	m := &machine{t: t, mmio: bus.New()}
	m.host = NewHost(m.mmio, Window{window, windowSize}, Window{wideWindow, 1 << 30})
	m.ecam = m.host.ECAM()
	m.a = NewFunction(Identity{Vendor: 0x1234, Device: 0x5678, SubVendor: 0x9abc, SubDevice: 0xdef0, Revision: 3, Class: 0x020000, Name: "a"})
	m.must(m.a.AddBAR(0, BAR{Size: 0x1000, Device: make(ram, 0x1000), Moved: func(addr uint64, mapped bool) {
		if !mapped {
			addr = 0
		}
		m.moves = append(m.moves, addr)
	}}))
	m.b = NewFunction(Identity{Vendor: 1, Device: 2, Class: 0xff0000, Name: "b"})
	m.must(m.b.AddBAR(2, BAR{Size: 0x10000, Wide: true, Device: make(ram, 0x10000)}))
	var err error
	m.msix, err = NewMSIX(3, func() (MSI, error) {
		m.msis = append(m.msis, new(fakeMSI))
		return m.msis[len(m.msis)-1], nil
	}, func(error) {})
	m.must(err)
	m.must(m.b.AddCapability(m.msix.Capability(2, 0x4000, 0x5000)))
	for i, f := range []*Function{m.a, m.b} {
		n, err := m.host.Add(f)
		m.must(err)
		if n != i+1 {
			t.Fatalf("device number %d, want %d", n, i+1)
		}
	}
	return m
}

func (m *machine) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// get and set access a configuration register by ECAM.
func (m *machine) get(dev, reg uint64, n int) uint64 {
	var p [8]byte
	m.ecam.Read(dev<<15|reg, p[:n])
	return binary.LittleEndian.Uint64(p[:])
}

func (m *machine) set(dev, reg uint64, n int, v uint64) {
	var p [8]byte
	binary.LittleEndian.PutUint64(p[:], v)
	m.ecam.Write(dev<<15|reg, p[:n])
}

func TestHeader(t *testing.T) {
	m := newMachine(t)
	for _, tt := range []struct {
		dev, reg uint64
		n        int
		want     uint64
	}{
		{0, 0, 4, 0x0d57_8086}, {0, 8, 4, 0x0600_0000}, {0, 0x34, 1, 0}, {0, 6, 2, 0},
		{1, 0, 4, 0x5678_1234}, {1, 2, 2, 0x5678}, {1, 3, 1, 0x56}, {1, 8, 4, 0x0200_0003}, {1, 0xb, 1, 2}, {1, 0xe, 1, 0},
		{1, 0x2c, 4, 0xdef0_9abc}, {1, 0x34, 1, 0}, {1, 0x3d, 1, 0}, {1, 0x10, 4, window}, {1, 0x14, 4, 0}, {1, 4, 2, 0},
		{2, 6, 2, 0x10}, {2, 0x34, 1, 0x40}, {2, 0x18, 8, window + 0x10000 | 4}, {2, 0x40, 2, 0x0011}, {2, 0x42, 2, 2},
		{2, 0x44, 4, 0x4002}, {2, 0x48, 4, 0x5002},
		{3, 0, 4, 0xffff_ffff}, {31, 0, 4, 0xffff_ffff}, // nobody there
		{1, 0x1000, 4, 0xffff_ffff}, // function 1 of device 1
		{1, 0x100, 4, 0xffff_ffff}, {1, 0xffe, 4, 0xffff_ffff}, {1, 0xfe, 4, 0xffff_ffff},
	} {
		if got := m.get(tt.dev, tt.reg, tt.n); got != tt.want {
			t.Errorf("device %d register %#x: %#x, want %#x", tt.dev, tt.reg, got, tt.want)
		}
	}
}

func TestReadOnlyRegistersStay(t *testing.T) {
	m := newMachine(t)
	for dev := range uint64(3) {
		before := m.host.function(dev, 0).State().Config
		for reg := range uint64(256) {
			m.set(dev, reg, 1, 0xff)
		}
		after := m.host.function(dev, 0).State().Config
		writable := []int{4, 5, 0x3c}
		switch dev {
		case 1:
			writable = append(writable, 0x11, 0x12, 0x13)
		case 2:
			writable = append(writable, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f, 0x43)
		}
		for i := range before {
			if changed := before[i] != after[i]; changed != slices.Contains(writable, i) {
				t.Errorf("device %d register %#x: %#x became %#x", dev, i, before[i], after[i])
			}
		}
	}
}

func TestPorts(t *testing.T) {
	m := newMachine(t)
	ports := m.host.Ports()
	out := func(off uint64, n int, v uint64) {
		var p [8]byte
		binary.LittleEndian.PutUint64(p[:], v)
		ports.Write(off, p[:n])
	}
	in := func(off uint64, n int) uint64 {
		var p [8]byte
		ports.Read(off, p[:n])
		return binary.LittleEndian.Uint64(p[:])
	}
	out(0, 4, 0xffff_ffff)
	if got := in(0, 4); got != 0x80ff_fffc {
		t.Errorf("CONFIG_ADDRESS %#x: reserved bits are set", got)
	}
	out(3, 1, 1) // how Linux tells mechanism #1 from #2: not this register
	if got := in(0, 4); got != 0x80ff_fffc || in(3, 1) != 0xff {
		t.Errorf("CONFIG_ADDRESS %#x after a write of a byte", got)
	}
	out(0, 4, 0x8000_0800)
	if in(4, 4) != 0x5678_1234 || in(6, 2) != 0x5678 || in(7, 1) != 0x56 {
		t.Error("device 1 by port")
	}
	out(0, 4, 0x8000_083c)
	out(4, 1, 11)
	if m.get(1, 0x3c, 1) != 11 {
		t.Error("a write by port is lost")
	}
	for _, addr := range []uint64{0x0000_0800, 0x8001_0800, 0x8000_f800, 0x8000_0900} { // off, bus 1, device 31, function 1
		out(0, 4, addr)
		if got := in(4, 4); got != 0xffff_ffff {
			t.Errorf("address %#x reads %#x", addr, got)
		}
		out(4, 4, 0)
	}
	for off := range uint64(8) {
		for _, n := range []int{1, 2, 4, 8} {
			out(off, n, 1<<63|0x8000_0804)
			in(off, n)
		}
	}
	m.host.SetAddress(0x8000_0800)
	if m.host.Address() != 0x8000_0800 {
		t.Error("CONFIG_ADDRESS is not restored")
	}
}

// The way software finds the size of a BAR (PCI 3.0 §6.2.5.1, implementation
// note).
func TestBARSizing(t *testing.T) {
	m := newMachine(t)
	m.set(1, 0x10, 4, 0xffff_ffff)
	if got := m.get(1, 0x10, 4); got != 0xffff_f000 {
		t.Errorf("32-bit BAR: %#x", got)
	}
	m.set(2, 0x18, 4, 0xffff_ffff)
	m.set(2, 0x1c, 4, 0xffff_ffff)
	if got := m.get(2, 0x18, 8); got != 0xffff_ffff_ffff_0004 {
		t.Errorf("64-bit BAR: %#x", got)
	}
	for _, reg := range []uint64{0x14, 0x18, 0x1c, 0x20, 0x24, 0x30} {
		m.set(1, reg, 4, 0xffff_ffff)
		if got := m.get(1, reg, 4); got != 0 {
			t.Errorf("register %#x, which is no BAR: %#x", reg, got)
		}
	}
}

func TestBARsAreDecodedWhereTheGuestWants(t *testing.T) {
	m := newMachine(t)
	at := func(addr uint64) string {
		_, _, r, ok := m.mmio.Lookup(addr)
		if !ok {
			return ""
		}
		return r.Name
	}
	if at(window) != "" {
		t.Error("mapped before the guest enabled memory space")
	}
	m.set(1, 4, 2, 2)
	if at(window) != "a BAR 0" {
		t.Error("not mapped")
	}
	m.set(1, 0x10, 4, window+0x5000)
	if at(window) != "" || at(window+0x5fff) != "a BAR 0" {
		t.Error("not moved")
	}
	for _, bad := range []uint64{0, 0xfee0_0000, window - 0x1000, window + windowSize, 0xffff_f000, 0x10_0000} {
		m.set(1, 0x10, 4, bad)
		if got := m.mmio.Ranges(); len(got) != 0 {
			t.Errorf("mapped at %#x: %v", bad, got)
		}
	}
	m.set(1, 0x10, 4, window+0x1_0000)
	m.set(2, 4, 2, 2) // its BAR is there already: nobody can have two owners
	if got := m.mmio.Ranges(); len(got) != 1 || got[0].Name != "a BAR 0" {
		t.Errorf("mapped %v", got)
	}
	m.set(2, 0x18, 4, 0)
	m.set(2, 0x1c, 4, wideWindow>>32)
	if at(wideWindow+0xffff) != "b BAR 2" {
		t.Error("not mapped above 4 GiB")
	}
	m.set(1, 4, 2, 0)
	if at(window+0x1_0000) != "" {
		t.Error("mapped with memory space off")
	}
	want := []uint64{window, window + 0x5000, 0, window + 0x1_0000, 0}
	if !slices.Equal(m.moves, want) {
		t.Errorf("told of %#x, want %#x", m.moves, want)
	}
	info := m.host.Inspect()
	if len(info) != 3 || info[2].BARs[0] != (BARInfo{2, wideWindow, 0x10000, true}) || info[1].BARs[0].Mapped {
		t.Errorf("inspected %+v", info)
	}
}

func TestAddRefuses(t *testing.T) {
	m := newMachine(t)
	f := func() *Function { return NewFunction(Identity{Name: "f"}) }
	for name, err := range map[string]error{
		"size 8":        f().AddBAR(0, BAR{Size: 8}),
		"size 24":       f().AddBAR(0, BAR{Size: 24}),
		"register 6":    f().AddBAR(6, BAR{Size: 16}),
		"register -1":   f().AddBAR(-1, BAR{Size: 16}),
		"half of a BAR": f().AddBAR(5, BAR{Size: 16, Wide: true}),
		"4 GiB":         f().AddBAR(0, BAR{Size: 1 << 32}),
		"taken":         m.b.AddBAR(2, BAR{Size: 16}),
		"upper half":    m.b.AddBAR(3, BAR{Size: 16}),
		"overlap":       m.b.AddBAR(1, BAR{Size: 16, Wide: true}),
		"large cap":     f().AddCapability(Capability{Data: make([]byte, 192)}),
	} {
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	big := f()
	m.must(big.AddBAR(0, BAR{Size: 1 << 30}))
	if _, err := m.host.Add(big); err == nil {
		t.Error("a BAR larger than the windows that it can be in")
	}
	for i := 3; i < Devices; i++ {
		if _, err := m.host.Add(f()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.host.Add(f()); err == nil {
		t.Error("a 33rd device")
	}
	for _, n := range []int{0, 2049} {
		if _, err := NewMSIX(n, nil, nil); err == nil {
			t.Errorf("%d vectors", n)
		}
	}
}

func TestCapabilityList(t *testing.T) {
	f := NewFunction(Identity{Name: "f"})
	var calls []string
	hook := func(name string) func([]byte, int, int) {
		return func(data []byte, off, n int) {
			calls = append(calls, name)
			if off != 1 || n != 2 || len(data) != 5 {
				t.Errorf("%s: %d bytes at %d of %d", name, n, off, len(data))
			}
			data[0]++
		}
	}
	m := newMachine(t)
	m.must(f.AddCapability(Capability{ID: 9, Data: make([]byte, 5), Mask: []byte{0, 0xf0, 0, 0, 0}, BeforeRead: hook("read"), AfterWrite: hook("write")}))
	m.must(f.AddCapability(Capability{ID: 5, Data: []byte{1, 2}}))
	var ids []byte
	cfg := f.State().Config
	for at := cfg[0x34]; at != 0; at = cfg[at+1] {
		if at%4 != 0 || at < 0x40 {
			t.Errorf("capability at %#x", at)
		}
		ids = append(ids, cfg[at])
	}
	if !bytes.Equal(ids, []byte{9, 5}) {
		t.Errorf("capabilities %v", ids)
	}
	p := make([]byte, 2)
	f.Read(0x43, p)
	f.Write(0x43, []byte{0xff, 0xff})
	f.Read(0x40, p) // the header only: no hook
	if !slices.Equal(calls, []string{"read", "write"}) {
		t.Errorf("hooks %v", calls)
	}
	if cfg := f.State().Config; cfg[0x42] != 2 || cfg[0x43] != 0xf0 || cfg[0x44] != 0 {
		t.Errorf("capability % x", cfg[0x40:0x48])
	}
}

func TestSaveAndRestore(t *testing.T) {
	m := newMachine(t)
	m.set(1, 4, 2, 2)
	m.set(1, 0x10, 4, window+0x8000)
	m.set(1, 0x3c, 1, 10)
	m.set(2, 0x42, 2, 0x8000)
	m.table(16, 0xfee0_0000)
	m.table(24, 77)
	m.table(28, 0)
	m.must(m.msix.Fire(2))
	fn, x := m.a.State(), m.msix.State()
	fnB := m.b.State()

	r := newMachine(t)
	r.must(r.a.SetState(fn))
	r.must(r.b.SetState(fnB))
	r.must(r.msix.SetState(x))
	if got := r.mmio.Ranges(); len(got) != 1 || got[0].Base != window+0x8000 {
		t.Errorf("mapped %v", got)
	}
	if r.get(1, 0x3c, 1) != 10 || r.get(2, 0x42, 2) != 0x8002 || r.pba() != 4 {
		t.Error("registers are not restored")
	}
	r.must(r.msix.Fire(1))
	if r.msis[0].data != 77 || r.msis[0].fired != 1 {
		t.Errorf("interrupt %+v", r.msis[0])
	}
	if err := r.b.SetState(fn); err == nil {
		t.Error("took the state of another device")
	}
	if err := r.a.SetState(State{Config: fn.Config[:255]}); err == nil {
		t.Error("took a short state")
	}
	if err := r.msix.SetState(MSIXState{}); err == nil {
		t.Error("took a table of another size")
	}
}

// FuzzConfig writes anything anywhere in configuration space, by both
// mechanisms, and in MSI-X's structures.
func FuzzConfig(f *testing.F) {
	f.Add([]byte{0, 1, 4, 2, 2, 0, 0, 1, 0x10, 4, 0, 0, 0, 0xc0})
	f.Add([]byte{1, 0, 0, 4, 0, 8, 0, 0x80, 1, 4, 0, 4, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 2, 0x42, 2, 0, 0x80, 2, 0, 28, 4, 0, 0, 0, 0, 3, 1, 0, 1})
	f.Fuzz(func(t *testing.T, in []byte) {
		m := newMachine(t)
		ports := m.host.Ports()
		for len(in) >= 4 {
			op, hi, lo, n := in[0], in[1], in[2], 1<<(in[3]%4)
			in = in[4:]
			p := make([]byte, n)
			in = in[copy(p, in):]
			off := uint64(hi)<<8 | uint64(lo)
			switch op % 5 {
			case 0:
				m.ecam.Write(uint64(hi%4)<<15|uint64(lo), p)
				m.ecam.Read(uint64(hi%4)<<15|uint64(lo), p)
			case 1:
				ports.Write(off%8, p)
				ports.Read(off%8, p)
			case 2:
				m.msix.WriteTable(off%64, p)
				m.msix.ReadTable(off%64, p)
				m.msix.ReadPBA(off%64, p)
			case 3:
				m.must(m.msix.Fire(int(hi)))
			case 4:
				m.ecam.Write(off<<4, p)
				m.ecam.Read(off<<4, p)
			}
			for _, r := range m.mmio.Ranges() {
				if !m.host.decodes(r.Base, r.Size) {
					t.Fatalf("%v is outside the windows", r)
				}
			}
		}
		r := newMachine(t)
		r.must(r.a.SetState(m.a.State()))
		r.must(r.b.SetState(m.b.State()))
		r.must(r.msix.SetState(m.msix.State()))
	})
}
