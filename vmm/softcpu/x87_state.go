package softcpu

import (
	"encoding/binary"

	"github.com/vitrine-vmm/vitrine/vmm/softcpu/internal/float"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// Saving and restoring FPU and SSE state (SDM vol. 1, 8.1.10, 10.5, chapter
// 13; vol. 2, FNSTENV, FNSAVE, FXSAVE, XSAVE).

const (
	fxsaveSize = 512
	xsaveSize  = fxsaveSize + 64
	xcr0X87    = 1 << 0
	xcr0SSE    = 1 << 1
	xcr0Mask   = xcr0X87 | xcr0SSE
)

// tagWord is the two bits a register of the full tag word.
func (f *fpu) tagWord() (w uint16) {
	for i := range 8 {
		tag := uint16(3)
		if f.full>>i&1 != 0 {
			switch n := f.reg[i].num(); {
			case n.Kind == float.KindZero:
				tag = 1
			case n.Kind == float.KindFinite && !n.Tiny:
				tag = 0
			default:
				tag = 2
			}
		}
		w |= tag << (2 * i)
	}
	return w
}

func (f *fpu) setTagWord(w uint16) {
	f.full = 0
	for i := range 8 {
		if w>>(2*i)&3 != 3 {
			f.full |= 1 << i
		}
	}
}

// fpuEnvironment is FLDENV, FNSTENV, FRSTOR, FNSAVE.
func (c *cpu) fpuEnvironment(in *inst, code uint8, a uint64) bool {
	n := uint64(14)
	if in.size != 2 {
		n = 28
	}
	regs := code>>3 == 5
	size := n
	if regs {
		size += 80
	}
	if in.reg&7 == 4 {
		return c.loadEnvironment(a, n, size, regs)
	}
	b := make([]byte, size)
	c.fpu.putEnvironment(b, c.mode&modeReal != 0)
	if regs {
		for i := range uint8(8) {
			p := b[n+10*uint64(i):]
			x := c.fpu.st(i)
			binary.LittleEndian.PutUint64(p, x.frac)
			binary.LittleEndian.PutUint16(p[8:], x.se)
		}
	}
	if !c.storeBytes(a, b) {
		return false
	}
	if regs {
		c.fpu.reset()
	} else {
		c.fpu.cw |= 0x3f
		c.fpu.sw &^= swES | swB
	}
	return true
}

// putEnvironment writes control, status and tag word, and the pointers.
func (f *fpu) putEnvironment(b []byte, realMode bool) {
	le := binary.LittleEndian
	words := []uint64{uint64(f.cw), uint64(f.sw), uint64(f.tagWord()), f.ip, uint64(f.op&0x7ff) << 16, f.dp, 0}
	if realMode {
		words[3], words[4] = f.ip&0xffff, f.ip>>16&0xffff<<12|uint64(f.op&0x7ff)
		words[5], words[6] = f.dp&0xffff, f.dp>>16&0xffff<<12
	}
	if len(b)%28 == 0 || len(b) == 108 {
		for i, w := range words {
			if i < 3 {
				w |= 0xffff0000
			}
			le.PutUint32(b[4*i:], uint32(w))
		}
		return
	}
	if !realMode {
		words[4] = 0
	}
	for i, w := range words {
		le.PutUint16(b[2*i:], uint16(w))
	}
}

func (c *cpu) loadEnvironment(a, n, size uint64, regs bool) bool {
	b, ok := c.loadBytes(a, size)
	if !ok {
		return false
	}
	le := binary.LittleEndian
	word := func(i uint64) uint16 { return le.Uint16(b[i*n/7:]) }
	f := &c.fpu
	f.sw = word(1) &^ (swES | swB)
	f.setCW(word(0))
	f.setTagWord(word(2))
	if n == 28 {
		f.ip, f.op, f.dp = uint64(le.Uint32(b[12:])), le.Uint16(b[18:])&0x7ff, uint64(le.Uint32(b[20:]))
	}
	if regs {
		for i := range uint8(8) {
			p := b[n+10*uint64(i):]
			*f.st(i) = ext{le.Uint16(p[8:]), le.Uint64(p)}
		}
	}
	return true
}

// loadBytes and storeBytes move state images; all of an image is accessible
// before any of it is written.
func (c *cpu) loadBytes(a, n uint64) ([]byte, bool) {
	b := make([]byte, n)
	for i := uint64(0); i < n; {
		size := uint64(8)
		if n-i < 8 {
			size = 2
		}
		v, ok := c.load(a+i, uint8(size))
		if !ok {
			return nil, false
		}
		var w [8]byte
		binary.LittleEndian.PutUint64(w[:], v)
		copy(b[i:], w[:size])
		i += size
	}
	return b, true
}

func (c *cpu) storeBytes(a uint64, b []byte) bool {
	if !c.probe(a, uint64(len(b)), accWrite) {
		return false
	}
	for len(b) >= 8 {
		if !c.store64(a, binary.LittleEndian.Uint64(b)) {
			return false
		}
		a, b = a+8, b[8:]
	}
	for len(b) >= 2 {
		if !c.store16(a, uint64(binary.LittleEndian.Uint16(b))) {
			return false
		}
		a, b = a+2, b[2:]
	}
	return true
}

// putFX writes the x87 part of an FXSAVE image.
func (f *fpu) putFX(b []byte, wide bool) {
	le := binary.LittleEndian
	le.PutUint16(b, f.cw)
	le.PutUint16(b[2:], f.sw)
	b[4], b[5] = f.full, 0
	le.PutUint16(b[6:], f.op&0x7ff)
	le.PutUint64(b[8:], f.ip)
	le.PutUint64(b[16:], f.dp)
	if !wide {
		le.PutUint32(b[12:], 0)
		le.PutUint32(b[20:], 0)
	}
	for i := range uint8(8) {
		p, x := b[32+16*int(i):], f.st(i)
		le.PutUint64(p, x.frac)
		le.PutUint64(p[8:], uint64(x.se))
	}
}

func (f *fpu) getFX(b []byte) {
	le := binary.LittleEndian
	f.sw = le.Uint16(b[2:]) &^ (swES | swB)
	f.setCW(le.Uint16(b))
	f.full = b[4]
	f.op, f.ip, f.dp = le.Uint16(b[6:])&0x7ff, le.Uint64(b[8:]), le.Uint64(b[16:])
	for i := range uint8(8) {
		p := b[32+16*int(i):]
		*f.st(i) = ext{le.Uint16(p[8:]), le.Uint64(p)}
	}
}

// putXMM and getXMM are the XMM registers, MXCSR excepted. Outside of 64-bit
// mode there are eight.
func (s *sse) putXMM(b []byte, n int) {
	for i, v := range s.xmm[:n] {
		binary.LittleEndian.PutUint64(b[160+16*i:], v[0])
		binary.LittleEndian.PutUint64(b[168+16*i:], v[1])
	}
}

func (s *sse) getXMM(b []byte, n int) {
	for i := range n {
		s.xmm[i] = vec{binary.LittleEndian.Uint64(b[160+16*i:]), binary.LittleEndian.Uint64(b[168+16*i:])}
	}
}

func (c *cpu) xmmCount() int {
	if c.code64() {
		return 16
	}
	return 8
}

func opFxsave(c *cpu, in *inst) bool {
	a := c.ea(in)
	if !c.aligned(a) {
		return false
	}
	b, ok := c.loadBytes(a, fxsaveSize)
	if !ok {
		return false
	}
	c.fpu.putFX(b, in.flags&flagREXW != 0)
	binary.LittleEndian.PutUint32(b[24:], c.sse.mxcsr)
	binary.LittleEndian.PutUint32(b[28:], mxcsrMask)
	c.sse.putXMM(b, c.xmmCount())
	return c.storeBytes(a, b)
}

func opFxrstor(c *cpu, in *inst) bool {
	a := c.ea(in)
	if !c.aligned(a) {
		return false
	}
	b, ok := c.loadBytes(a, fxsaveSize)
	if !ok {
		return false
	}
	mx := binary.LittleEndian.Uint32(b[24:])
	if mx&^mxcsrMask != 0 {
		return c.raiseCode(vectorGP, 0)
	}
	c.fpu.getFX(b)
	c.sse.mxcsr = mx
	c.sse.getXMM(b, c.xmmCount())
	return true
}

// xsaveOK checks what XSAVE and XRSTOR have in common and returns the
// requested features.
func (c *cpu) xsaveOK(a uint64) (features uint64, ok bool) {
	if c.cr4&x86.CR4OSXSAVE == 0 {
		return 0, c.raise(vectorUD)
	}
	if c.cr0&x86.CR0TS != 0 {
		return 0, c.raise(vectorNM)
	}
	if a&63 != 0 {
		return 0, c.raiseCode(vectorGP, 0)
	}
	return (c.regs[rDX]<<32 | c.regs[rAX]&0xffffffff) & c.xcr0, true
}

// opXsave saves both components whenever asked: none is tracked as being in
// its initial state.
func opXsave(c *cpu, in *inst) bool {
	a := c.ea(in)
	features, ok := c.xsaveOK(a)
	if !ok {
		return false
	}
	b, ok := c.loadBytes(a, xsaveSize)
	if !ok {
		return false
	}
	if features&xcr0X87 != 0 {
		c.fpu.putFX(b, in.flags&flagREXW != 0)
	}
	if features&xcr0SSE != 0 {
		binary.LittleEndian.PutUint32(b[24:], c.sse.mxcsr)
		binary.LittleEndian.PutUint32(b[28:], mxcsrMask)
		c.sse.putXMM(b, c.xmmCount())
	}
	bv := binary.LittleEndian.Uint64(b[fxsaveSize:])
	binary.LittleEndian.PutUint64(b[fxsaveSize:], bv|features)
	return c.storeBytes(a, b)
}

func opXrstor(c *cpu, in *inst) bool {
	a := c.ea(in)
	features, ok := c.xsaveOK(a)
	if !ok {
		return false
	}
	b, ok := c.loadBytes(a, xsaveSize)
	if !ok {
		return false
	}
	le := binary.LittleEndian
	bv, mx := le.Uint64(b[512:]), le.Uint32(b[24:])
	if bv&^c.xcr0 != 0 || le.Uint64(b[520:])|le.Uint64(b[528:]) != 0 ||
		features&xcr0SSE != 0 && mx&^mxcsrMask != 0 {
		return c.raiseCode(vectorGP, 0)
	}
	switch {
	case features&bv&xcr0X87 != 0:
		c.fpu.getFX(b)
	case features&xcr0X87 != 0:
		c.fpu = fpu{}
		c.fpu.reset()
	}
	if features&xcr0SSE != 0 {
		c.sse.mxcsr = mx
		if bv&xcr0SSE == 0 {
			clear(b)
		}
		c.sse.getXMM(b, c.xmmCount())
	}
	return true
}

func opLdmxcsr(c *cpu, in *inst) bool {
	v, ok := c.load32(c.ea(in))
	if !ok {
		return false
	}
	if v&^mxcsrMask != 0 {
		return c.raiseCode(vectorGP, 0)
	}
	c.sse.mxcsr = uint32(v)
	return true
}

func opStmxcsr(c *cpu, in *inst) bool { return c.store32(c.ea(in), uint64(c.sse.mxcsr)) }

func opXgetbv(c *cpu, in *inst) bool {
	if c.cr4&x86.CR4OSXSAVE == 0 {
		return c.raise(vectorUD)
	}
	if uint32(c.regs[rCX]) != 0 {
		return c.raiseCode(vectorGP, 0)
	}
	c.regs[rAX], c.regs[rDX] = c.xcr0, 0
	return true
}

func opXsetbv(c *cpu, in *inst) bool {
	if c.cr4&x86.CR4OSXSAVE == 0 {
		return c.raise(vectorUD)
	}
	v := c.regs[rDX]<<32 | c.regs[rAX]&0xffffffff
	if c.cpl != 0 || uint32(c.regs[rCX]) != 0 || v&xcr0X87 == 0 || v&^xcr0Mask != 0 {
		return c.raiseCode(vectorGP, 0)
	}
	c.xcr0 = v
	return c.done(in)
}
