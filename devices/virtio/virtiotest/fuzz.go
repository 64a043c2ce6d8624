package virtiotest

import (
	"encoding/binary"
	"runtime"
	"strings"
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// Fuzz runs programs of a hostile driver against devices from newDevice: chains
// good and bad, lies in the rings, register accesses in any order, resets with
// requests in flight. The device must neither panic, nor hang on to a request
// for ever, nor touch what is not guest memory; a device that gives up is reset
// and goes on. The device's back end must not wait for the outside world.
func Fuzz(f *testing.F, newDevice func(t testing.TB) virtio.Device) {
	for _, seed := range fuzzSeeds {
		f.Add(seed)
	}
	if dev := newDevice(f); !strings.HasPrefix(dev.Spec().ID.String(), "device type") { // else one of a test's
		CheckNames(f, dev)
	}
	f.Fuzz(func(t *testing.T, program []byte) {
		p := &fuzzer{in: program}
		kind := p.byte()
		cfg := Config{Memory: 1 << 20, QueueSize: 8, PCI: kind&1 != 0, Doorbells: kind&2 != 0, Lends: kind&4 != 0}
		p.d = New(t, newDevice(t), cfg)
		p.restart()
		for steps := 0; len(p.in) > 0 && steps < 256; steps++ {
			p.step()
		}
	})
}

// fuzzSeeds are programs of the operations that step decodes: a good request, a
// bad one of each kind, a reset in the midst.
var fuzzSeeds = [][]byte{
	{0, 0, 0, 0, 16, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 1, 200},
	{1, 0, 0, 0, 16, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 2, 200, 100, 4},
	{0, 1, 0, 0, 5, 3, 255, 255, 2, 2, 0, 0, 3, 0},
	{0, 1, 0, 1, 0, 1, 1, 0, 1, 1, 4, 0, 1, 0, 2, 0, 0, 3, 0},
	{1, 2, 0, 200, 3, 0, 5, 3, 6, 0x70, 0, 4, 0, 0, 0, 0},
	{0, 6, 0x44, 0, 4, 1, 0, 0, 0, 7, 0, 8, 8, 9, 3, 1},
	{0, 0, 1, 1, 4, 9, 9, 9, 9, 1, 64, 4, 0, 0, 0, 0, 2, 1, 1, 1, 1},
	{6, 0, 0, 0, 16, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 1, 200},
	{7, 2, 0, 200, 3, 0, 5, 3, 6, 0x70, 0, 4, 0, 0, 0, 0},
}

type fuzzer struct {
	d  *Driver
	in []byte
}

func (p *fuzzer) byte() byte {
	if len(p.in) == 0 {
		return 0
	}
	b := p.in[0]
	p.in = p.in[1:]
	return b
}

func (p *fuzzer) uint16() uint16 { return uint16(p.byte()) | uint16(p.byte())<<8 }

func (p *fuzzer) bytes(n int) []byte {
	n = min(n, len(p.in))
	b := p.in[:n]
	p.in = p.in[n:]
	return b
}

func (p *fuzzer) ring() *Ring {
	if len(p.d.Rings) == 0 {
		return nil
	}
	return p.d.Rings[int(p.byte())%len(p.d.Rings)]
}

// restart brings the device to DRIVER_OK with features of the program's choice.
func (p *fuzzer) restart() {
	want := uint64(p.byte()) * 0x0101_0101_0101_0101
	p.d.Start(want &^ 0xffff_fffe_0000_0000)
	for _, r := range p.d.Rings {
		r.Indirect = p.d.Features&virtio.FeatureIndirectDesc != 0
	}
}

func (p *fuzzer) step() {
	op, r := p.byte(), p.ring()
	if r == nil {
		return
	}
	switch op % 10 {
	case 0:
		p.request(r)
	case 1:
		r.SetDescriptor(p.uint16()%r.Size, p.descriptor())
	case 2:
		r.Offer(p.uint16() % (r.Size + 2))
	case 3:
		r.Notify()
	case 4:
		r.SetAvailIdx(r.AvailIdx() + uint16(int8(p.byte())))
	case 5:
		p.restart()
	case 6:
		p.d.Regs.Poke(uint64(p.uint16()%0x1200), p.access())
	case 7:
		p.d.Regs.Peek(uint64(p.uint16()), p.access())
	case 8:
		at := memory.Addr(p.uint16()) * 4
		copy(p.d.Arena.Bytes(at, 64), p.bytes(int(p.byte()%64)))
	case 9:
		off := uint64(p.byte())
		p.d.Regs.WriteConfig(off, p.access())
		p.d.Regs.ReadConfig(off, make([]byte, 8))
	}
	p.settle(r)
}

// access is 1, 2, 4 or 8 bytes.
func (p *fuzzer) access() []byte {
	b := make([]byte, 1<<(p.byte()%4))
	copy(b, p.bytes(len(b)))
	return b
}

// request is a chain with good descriptors and any contents.
func (p *fuzzer) request(r *Ring) {
	var out [][]byte
	for range p.byte()%3 + 1 {
		out = append(out, p.bytes(int(p.byte())))
	}
	var in []int
	for range p.byte() % 4 {
		in = append(in, int(p.byte())*int(p.byte()%5+1))
	}
	n := len(out) + len(in)
	if r.Indirect {
		n = 1
	}
	if n > len(r.free) || r.Arena.room() < 64<<10 {
		p.d.Regs.Notify(0)
		return
	}
	r.Add(out, in...)
	r.Kick()
}

// descriptor has an address of every kind there is.
func (p *fuzzer) descriptor() Descriptor {
	end := memory.Addr(p.d.cfg.Memory)
	bases := [...]memory.Addr{0x2000, end - 16, end, memory.HoleStart + 0x1000_0000, 1<<64 - 16, p.d.Rings[0].Desc, p.d.Rings[0].Avail, p.d.Rings[0].Used}
	lens := [...]uint32{0, 1, 16, 48, 4096, 1 << 20, 1 << 31, 1<<32 - 1}
	b := p.byte()
	return Descriptor{
		Addr:  bases[b%8] + memory.Addr(p.byte()),
		Len:   lens[b/8%8] + uint32(p.byte()%4),
		Flags: uint16(p.byte() % 8),
		Next:  uint16(p.byte() % 10),
	}
}

// settle gives the device time to take what it was offered, and takes what it
// used. A device that gave up is started again.
func (p *fuzzer) settle(r *Ring) {
	for range 50 {
		runtime.Gosched()
		if p.d.NeedsReset() {
			p.restart()
			return
		}
	}
	for e := r.harvest(); e; e = r.harvest() {
	}
}

// harvest takes one used element that may name anything, after the driver's own
// lies, and says whether there was one.
func (r *Ring) harvest() bool {
	if r.load(r.Used+2) == r.lastUsed {
		return false
	}
	e := r.Arena.Bytes(r.Used+4+8*memory.Addr(r.lastUsed%r.Size), 8)
	r.lastUsed++
	if head := binary.LittleEndian.Uint32(e); head < uint32(r.Size) && r.requests[head] != nil {
		q := r.requests[head]
		r.requests[head] = nil
		r.Release(q)
	}
	return true
}

// room is what the arena has left beside what was freed.
func (a *Arena) room() uint64 { return uint64(a.end - a.next) }
