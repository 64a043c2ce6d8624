package softcpu

import (
	"encoding/binary"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// String instructions (SDM vol. 2: MOVS, CMPS, STOS, LODS, SCAS, INS, OUTS,
// REP). Every element leaves the registers as they are between two of them, so
// that a fault, an exit or an interrupt may come in the middle.

// step is what the index registers move by for each element.
func (c *cpu) step(in *inst) uint64 {
	if c.flags&x86.FlagDF != 0 {
		return -uint64(in.size)
	}
	return uint64(in.size)
}

// advance moves an index register, in the address size.
func (c *cpu) advance(n, asize uint8, by uint64) { c.setGPR(n, asize, c.regs[n&31]+by) }

// count is the repeat count.
func (c *cpu) count(in *inst) uint64 { return c.regs[rCX] & in.amask }

// bytesPerTick is how many bytes that are moved at once count as an
// instruction: a long move must not stop deterministic time.
const bytesPerTick = 64

// wanted says whether something asks for attention.
func (c *cpu) wanted() bool { return c.attn.Load() != 0 || c.icount >= c.until }

// again leaves a repeated instruction in the middle to look at attn. In
// deterministic time that does not count as an instruction: who asks may be
// outside the machine. For the same reason what is done next, and what it takes,
// depends on the registers alone wherever a repeated instruction is left.
func (c *cpu) again(in *inst) bool {
	if c.vm.turns.det {
		c.stop = stopAgain
		return false
	}
	return c.branch(c.ipAt(in.off))
}

// repeat runs one for each element, at most as often as rCX says; one returns
// false to stop early after its element (with more) or because it faulted.
func (c *cpu) repeat(in *inst, one func(*cpu, *inst) (ok, more bool)) bool {
	if in.rep == 0 {
		ok, _ := one(c, in)
		return ok
	}
	for c.count(in) != 0 {
		ok, more := c.elements(in, one)
		if !ok {
			return false
		}
		if !more {
			break
		}
	}
	return true
}

// elements is repeat up to where the instruction may be left: at each access to
// a device, and else when rCX is a multiple of 1024.
func (c *cpu) elements(in *inst, one func(*cpu, *inst) (ok, more bool)) (ok, more bool) {
	for c.count(in) != 0 {
		if ok, more = one(c, in); !ok {
			return false, false
		}
		device := c.io.n != 0
		c.io.reset()
		c.advance(rCX, in.asize, ^uint64(0))
		if !more {
			return true, false
		}
		left := c.count(in)
		if device || left%16 == 0 {
			c.icount++ // time passes, also for each access to a device
		}
		due := left%1024 == 0 || device
		if (due || c.debug.looking) && c.wanted() {
			return c.again(in), false
		}
		if due {
			return true, true
		}
	}
	return true, true
}

// source and destination are the linear addresses of the element.
func (c *cpu) source(in *inst) (uint64, bool) {
	return c.segAddr(in, c.regs[rSI]&in.amask, in.size, false)
}

func (c *cpu) destination(in *inst, write bool) (uint64, bool) {
	return c.segmentAddr(int(in.rm)-rSeg, in.rm, c.regs[rDI]&in.amask, in.size, write)
}

// span returns the host's bytes from a to the end of its page, nil if they are
// not RAM.
func (c *cpu) span(a uint64, acc access) (b []byte, ok bool) {
	t := c.tr
	if acc&accWrite != 0 {
		t = c.tw
	}
	e := &t[a>>12&tlbMask]
	if e.tag == a&^pageMask {
		return e.page[a&pageMask:], true
	}
	page, _, ok := c.page(a, acc)
	if page == nil || c.debug.watching && c.debug.watched(a) {
		return nil, ok
	}
	return page[a&pageMask:], ok
}

// bulk says whether a repeated instruction may work on whole pages: upwards,
// with full-width addresses in segments that need no checks.
func (c *cpu) bulk(in *inst) bool {
	return in.rep != 0 && c.flags&x86.FlagDF == 0 && c.mode&modeChecks == 0 && c.code64() && in.asize == 8
}

func opMovs(c *cpu, in *inst) bool {
	for c.bulk(in) && c.count(in) != 0 {
		moved, ok := c.movsPage(in)
		if !ok {
			return false
		}
		if moved == 0 {
			if ok, _ := c.elements(in, movsOne); !ok {
				return false
			}
			continue
		}
		if c.icount += moved / bytesPerTick; c.wanted() && c.count(in) != 0 {
			return c.again(in)
		}
	}
	return c.repeat(in, movsOne)
}

// movsPage moves as much as lies in one page on both sides. It moves nothing
// if that is not possible: an element across pages, a device, an overlap.
func (c *cpu) movsPage(in *inst) (n uint64, ok bool) {
	src, ok := c.span(c.regs[rSI]+c.regs[in.seg&31], 0)
	if !ok {
		return 0, false
	}
	dst, ok := c.span(c.regs[rDI], accWrite)
	if !ok {
		return 0, false
	}
	size := uint64(in.size)
	n = min(uint64(len(src)), uint64(len(dst)), c.count(in)*size)
	if c.count(in) > pageSize {
		n = min(uint64(len(src)), uint64(len(dst)))
	}
	n -= n % size
	if n == 0 || overlap(src[:n], dst[:n]) {
		return 0, true
	}
	copy(dst[:n], src[:n])
	c.regs[rSI] += n
	c.regs[rDI] += n
	c.regs[rCX] -= n / size
	return n, true
}

// overlap says whether dst begins inside src, so that what is copied first is
// read again. Their linear addresses do not tell, two pages may be one in
// memory; the capacity of each is the distance to the end of its page.
func overlap(src, dst []byte) bool {
	same := &src[:cap(src)][cap(src)-1] == &dst[:cap(dst)][cap(dst)-1]
	return same && cap(src) > cap(dst) && cap(src)-cap(dst) < len(src)
}

func movsOne(c *cpu, in *inst) (ok, more bool) {
	s, ok := c.source(in)
	if !ok {
		return false, false
	}
	v, ok := c.load(s, in.size)
	if !ok {
		return false, false
	}
	d, ok := c.destination(in, true)
	if !ok || !c.store(d, in.size, v) {
		return false, false
	}
	by := c.step(in)
	c.advance(rSI, in.asize, by)
	c.advance(rDI, in.asize, by)
	return true, true
}

func opStos(c *cpu, in *inst) bool {
	for c.bulk(in) && c.count(in) != 0 {
		dst, ok := c.span(c.regs[rDI], accWrite)
		if !ok {
			return false
		}
		n := uint64(len(dst)) / uint64(in.size)
		n = min(n, c.count(in))
		if n == 0 {
			if ok, _ := c.elements(in, stosOne); !ok {
				return false
			}
			continue
		}
		fill(dst[:n*uint64(in.size)], c.regs[rAX], in.size)
		c.regs[rDI] += n * uint64(in.size)
		c.regs[rCX] -= n
		if c.icount += n * uint64(in.size) / bytesPerTick; c.wanted() && c.count(in) != 0 {
			return c.again(in)
		}
	}
	return c.repeat(in, stosOne)
}

// fill repeats the low size bytes of v.
func fill(b []byte, v uint64, size uint8) {
	if zeroExtend(v, 64-8*size) == 0 {
		clear(b)
		return
	}
	switch size {
	case 1:
		for i := range b {
			b[i] = byte(v)
		}
	case 2:
		for ; len(b) >= 2; b = b[2:] {
			binary.LittleEndian.PutUint16(b, uint16(v))
		}
	case 4:
		for ; len(b) >= 4; b = b[4:] {
			binary.LittleEndian.PutUint32(b, uint32(v))
		}
	default:
		for ; len(b) >= 8; b = b[8:] {
			binary.LittleEndian.PutUint64(b, v)
		}
	}
}

func stosOne(c *cpu, in *inst) (ok, more bool) {
	d, ok := c.destination(in, true)
	if !ok || !c.store(d, in.size, c.regs[rAX]) {
		return false, false
	}
	c.advance(rDI, in.asize, c.step(in))
	return true, true
}

func opLods(c *cpu, in *inst) bool { return c.repeat(in, lodsOne) }

func lodsOne(c *cpu, in *inst) (ok, more bool) {
	s, ok := c.source(in)
	if !ok {
		return false, false
	}
	v, ok := c.load(s, in.size)
	if !ok {
		return false, false
	}
	c.setGPR(rAX, in.size, v)
	c.advance(rSI, in.asize, c.step(in))
	return true, true
}

func opCmps(c *cpu, in *inst) bool { return c.compare(in, cmpsOne) }

// compare is repeat for the two that set flags: a fault in the middle gives the
// flags back as they were before the instruction (SDM vol. 2, REP). AMD's
// processors leave those of the last element.
func (c *cpu) compare(in *inst, one func(*cpu, *inst) (ok, more bool)) bool {
	before := c.rflags()
	if c.repeat(in, one) {
		return true
	}
	if c.stop == stopFault { // and not to look at attn, maybe behind the last element
		c.setArith(before)
	}
	return false
}

func cmpsOne(c *cpu, in *inst) (ok, more bool) {
	s, ok := c.source(in)
	if !ok {
		return false, false
	}
	a, ok := c.load(s, in.size)
	if !ok {
		return false, false
	}
	d, ok := c.destination(in, false)
	if !ok {
		return false, false
	}
	b, ok := c.load(d, in.size)
	if !ok {
		return false, false
	}
	c.alu(aluCmp, a, b, in.sh)
	by := c.step(in)
	c.advance(rSI, in.asize, by)
	c.advance(rDI, in.asize, by)
	return true, c.zf() == (in.rep == 0xf3)
}

func opScas(c *cpu, in *inst) bool { return c.compare(in, scasOne) }

func scasOne(c *cpu, in *inst) (ok, more bool) {
	d, ok := c.destination(in, false)
	if !ok {
		return false, false
	}
	b, ok := c.load(d, in.size)
	if !ok {
		return false, false
	}
	c.alu(aluCmp, c.regs[rAX], b, in.sh)
	c.advance(rDI, in.asize, c.step(in))
	return true, c.zf() == (in.rep == 0xf3)
}

func opIns(c *cpu, in *inst) bool {
	in.size = min(in.size, 4)
	return c.portAllowed(uint16(c.regs[rDX]), in.size) && c.repeat(in, insOne)
}

func insOne(c *cpu, in *inst) (ok, more bool) {
	d, ok := c.destination(in, true)
	if !ok || !c.probe(d, uint64(in.size), accWrite) {
		return false, false
	}
	v, ok := c.portIn(uint16(c.regs[rDX]), in.size)
	if !ok || !c.store(d, in.size, v) {
		return false, false
	}
	c.advance(rDI, in.asize, c.step(in))
	return true, true
}

func opOuts(c *cpu, in *inst) bool {
	in.size = min(in.size, 4)
	return c.portAllowed(uint16(c.regs[rDX]), in.size) && c.repeat(in, outsOne)
}

func outsOne(c *cpu, in *inst) (ok, more bool) {
	s, ok := c.source(in)
	if !ok {
		return false, false
	}
	v, ok := c.load(s, in.size)
	if !ok || !c.portOut(uint16(c.regs[rDX]), in.size, v) {
		return false, false
	}
	c.advance(rSI, in.asize, c.step(in))
	return true, true
}
