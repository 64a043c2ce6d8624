package pci

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

type fakeMSI struct {
	addr   uint64
	data   uint32
	sets   int
	fired  int
	closed bool
	fail   error
}

func (m *fakeMSI) Set(a uint64, d uint32) error { m.addr, m.data = a, d; m.sets++; return m.fail }
func (m *fakeMSI) Fire() error                  { m.fired++; return nil }
func (m *fakeMSI) Close() error                 { m.closed = true; return nil }

func (m *machine) table(off uint64, v uint32) {
	m.msix.WriteTable(off, binary.LittleEndian.AppendUint32(nil, v))
}

func (m *machine) pba() byte {
	p := make([]byte, 8)
	m.msix.ReadPBA(0, p)
	return p[0]
}

func TestMSIX(t *testing.T) {
	m := newMachine(t)
	const enable, mask = 0x8000, 0x4000
	fire := func(i int) { m.must(m.msix.Fire(i)) }
	fire(1) // off: lost
	if m.pba() != 0 || m.msix.Enabled() {
		t.Error("pending while MSI-X is off")
	}
	// As Linux does: enable with everything masked, fill in, unmask.
	m.set(2, 0x42, 2, enable|mask)
	m.table(16, 0xfee0_1003)
	m.table(20, 1)
	m.table(24, 0x4041)
	if len(m.msis) != 0 {
		t.Error("an interrupt was taken from the accelerator for a masked vector")
	}
	fire(1)
	m.table(28, 0)
	if m.pba() != 2 {
		t.Errorf("pending %#b, want vector 1: the function is masked", m.pba())
	}
	m.set(2, 0x42, 2, enable)
	msi := m.msis[0]
	if msi.fired != 1 || msi.addr != 0x1_fee0_1000 || msi.data != 0x4041 || m.pba() != 0 {
		t.Errorf("unmasked: %+v, pending %#b", msi, m.pba())
	}
	fire(1)
	fire(1)
	if msi.fired != 3 || msi.sets != 1 {
		t.Errorf("fired: %+v", msi)
	}
	// A new message, under the vector's mask.
	m.table(28, 1)
	fire(1)
	m.table(24, 0x4042)
	if msi.sets != 1 || msi.fired != 3 || m.pba() != 2 {
		t.Errorf("masked: %+v, pending %#b", msi, m.pba())
	}
	m.table(28, 0xffff_fffe) // reserved bits stay 0
	if msi.sets != 2 || msi.fired != 4 || msi.data != 0x4042 {
		t.Errorf("unmasked: %+v", msi)
	}
	p := make([]byte, 16)
	for off := uint64(0); off < 16; off += 8 {
		m.msix.ReadTable(16+off, p[off:off+8])
	}
	if want := []byte{0, 0x10, 0xe0, 0xfe, 1, 0, 0, 0, 0x42, 0x40, 0, 0, 0, 0, 0, 0}; !bytes.Equal(p, want) {
		t.Errorf("entry % x, want % x", p, want)
	}
	fire(0) // masked
	fire(3) // not there
	fire(-1)
	if m.pba() != 1 || len(m.msis) != 1 {
		t.Errorf("pending %#b, %d interrupts in use", m.pba(), len(m.msis))
	}
	m.set(2, 0x42, 2, 0)
	if m.pba() != 0 {
		t.Error("pending after MSI-X was turned off")
	}
	m.must(m.msix.Close())
	if !msi.closed {
		t.Error("the accelerator has not got its interrupt back")
	}
}

func TestMSIXRefusedByTheAccelerator(t *testing.T) {
	var told int
	fails := errors.New("full")
	x, err := NewMSIX(2, func() (MSI, error) { return nil, fails }, func(error) { told++ })
	if err != nil {
		t.Fatal(err)
	}
	x.setControl(0x8000)
	x.WriteTable(12, make([]byte, 4))
	if err := x.Fire(0); !errors.Is(err, fails) || told != 1 {
		t.Errorf("fire: %v, told %d times", err, told)
	}
}

func TestMSIXAccessesOfAnyShape(t *testing.T) {
	m := newMachine(t)
	for off := uint64(0); off < 80; off++ {
		for _, n := range []int{1, 2, 4, 8} {
			ok := n >= 4 && off%uint64(n) == 0
			p := bytes.Repeat([]byte{0x55}, n)
			m.msix.WriteTable(off, p)
			m.msix.ReadTable(off, p)
			if all := bytes.Count(p, []byte{0xff}) == n; all == (ok && off < 48) {
				t.Errorf("table at %d, %d bytes: % x", off, n, p)
			}
			m.msix.ReadPBA(off, p)
			if all := bytes.Count(p, []byte{0xff}) == n; all == (ok && off < 8) {
				t.Errorf("pending bits at %d, %d bytes: % x", off, n, p)
			}
		}
	}
	if m.msix.TableSize() != 48 || m.msix.PBASize() != 8 || m.msix.Vectors() != 3 {
		t.Error("sizes")
	}
}
