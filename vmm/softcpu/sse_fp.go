package softcpu

import (
	"math"

	"github.com/vitrine-vmm/vitrine/vmm/softcpu/internal/float"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// Floating-point arithmetic of SSE. Package float computes any case; where
// MXCSR says that nothing but the result and the inexact flag can come of an
// operation, and its operands and result are plain numbers, the host's
// arithmetic is the same.

const (
	fpAdd = iota
	fpMul
	fpSub
	fpMin
	fpDiv
	fpMax
	fpSqrt
)

// plainMode is MXCSR with every exception masked and rounding to nearest.
func (c *cpu) plainMode() bool {
	return c.sse.mxcsr&(mxcsrMasks|mxcsrFTZ|mxcsrDAZ|3<<13) == mxcsrMasks
}

func plain64(v uint64) bool { return v>>52&0x7ff-1 < 0x7fe }
func plain32(v uint64) bool { return v>>23&0xff-1 < 0xfe }

// certain64 says of a result that it neither overflowed nor was tiny before it
// was rounded, and that what rounding took off it is not tiny either.
func certain64(v uint64) bool { return v>>52&0x7ff-110 < 0x7fe-109 }
func certain32(v uint64) bool { return v>>23&0xff-2 < 0xfd }

// fast64 computes on the host. inexact says that the result is rounded; ok is
// false if package float has to compute.
func fast64(op uint8, a, b uint64) (r uint64, inexact, ok bool) {
	if !plain64(b) || !plain64(a) && op != fpSqrt {
		return 0, false, false
	}
	x, y := math.Float64frombits(a), math.Float64frombits(b)
	var z, rest float64 // the result, and what is 0 if it is exact
	switch op {
	case fpAdd, fpSub:
		if op == fpSub {
			y = -y
		}
		z = x + y
		t := z - x
		rest = (x - (z - t)) + (y - t)
	case fpMul:
		z = x * y
		rest = math.FMA(x, y, -z)
	case fpDiv:
		z = x / y
		rest = math.FMA(z, y, -x)
		if !certain64(a) {
			return 0, false, false
		}
	case fpSqrt:
		if b>>63 != 0 || !certain64(b) {
			return 0, false, false
		}
		z = math.Sqrt(y)
		rest = math.FMA(z, z, -y)
	case fpMin:
		return math.Float64bits(min(x, y)), false, true
	case fpMax:
		return math.Float64bits(max(x, y)), false, true
	}
	if rest != rest { // an intermediate of the sum overflowed
		return 0, false, false
	}
	r = math.Float64bits(z)
	return r, rest != 0, certain64(r) || r == 0 && (op == fpAdd || op == fpSub)
}

// fast32 is fast64 for singles, whose products doubles hold exactly.
func fast32(op uint8, a, b uint64) (r uint64, inexact, ok bool) {
	if !plain32(b) || !plain32(a) && op != fpSqrt {
		return 0, false, false
	}
	x, y := math.Float32frombits(uint32(a)), math.Float32frombits(uint32(b))
	dx, dy := float64(x), float64(y)
	var z float32
	var exact bool
	switch op {
	case fpAdd, fpSub:
		if op == fpSub {
			y = -y
		}
		z = x + y
		t := z - x
		rest := (x - (z - t)) + (y - t)
		if rest != rest {
			return 0, false, false
		}
		exact = rest == 0
	case fpMul:
		z = x * y
		exact = float64(z) == dx*dy
	case fpDiv:
		z = x / y
		exact = float64(z)*dy == dx
	case fpSqrt:
		if b>>31 != 0 {
			return 0, false, false
		}
		z = float32(math.Sqrt(dy))
		exact = float64(z)*float64(z) == dy
	case fpMin:
		return uint64(math.Float32bits(min(x, y))), false, true
	case fpMax:
		return uint64(math.Float32bits(max(x, y))), false, true
	}
	r = uint64(math.Float32bits(z))
	return r, !exact, certain32(r) || r == 0 && (op == fpAdd || op == fpSub)
}

// compute is one operation in full.
func compute(e *float.Env, op uint8, a, b float.Num, f float.Format) float.Num {
	switch op {
	case fpAdd:
		return e.Add(a, b, f)
	case fpMul:
		return e.Mul(a, b, f)
	case fpSub:
		return e.Sub(a, b, f)
	case fpDiv:
		return e.Div(a, b, f)
	case fpSqrt:
		return e.Sqrt(b, f)
	}
	// MIN and MAX give the second operand if one is a NaN or both are zero.
	if e.DenormalsAreZero {
		a, b = flushTiny(a), flushTiny(b)
	}
	o := e.Compare(a, b, true)
	if op == fpMin && o == float.Less || op == fpMax && o == float.Greater {
		return a
	}
	return b
}

func flushTiny(n float.Num) float.Num {
	if n.Tiny {
		return float.Num{Neg: n.Neg}
	}
	return n
}

func (c *cpu) fp64(e *float.Env, op uint8, a, b uint64) uint64 {
	if c.plainMode() {
		if r, inexact, ok := fast64(op, a, b); ok {
			if inexact {
				e.Flags |= float.Inexact
			}
			return r
		}
	}
	return compute(e, op, float.From64(a), float.From64(b), float.Double).Pack64()
}

func (c *cpu) fp32(e *float.Env, op uint8, a, b uint64) uint64 {
	a, b = a&0xffffffff, b&0xffffffff
	if c.plainMode() {
		if r, inexact, ok := fast32(op, a, b); ok {
			if inexact {
				e.Flags |= float.Inexact
			}
			return r
		}
	}
	return uint64(compute(e, op, float.From32(uint32(a)), float.From32(uint32(b)), float.Single).Pack32())
}

func opFPsd(c *cpu, in *inst) bool {
	b, ok := c.source64(in)
	if !ok {
		return false
	}
	e := c.sse.env()
	d := c.dest(in)
	r := c.fp64(&e, in.op, d[0], b)
	if !c.raiseFP(e.Flags) {
		return false
	}
	d[0] = r
	return true
}

func opFPss(c *cpu, in *inst) bool {
	b, ok := c.source32(in)
	if !ok {
		return false
	}
	e := c.sse.env()
	d := c.dest(in)
	r := c.fp32(&e, in.op, d[0], b)
	if !c.raiseFP(e.Flags) {
		return false
	}
	d.setLow32(r)
	return true
}

func opFPpd(c *cpu, in *inst) bool {
	b, ok := c.source128(in)
	if !ok {
		return false
	}
	e := c.sse.env()
	d := c.dest(in)
	r := vec{c.fp64(&e, in.op, d[0], b[0]), c.fp64(&e, in.op, d[1], b[1])}
	return c.setVec(in, r, &e)
}

func opFPps(c *cpu, in *inst) bool {
	b, ok := c.source128(in)
	if !ok {
		return false
	}
	e := c.sse.env()
	d := c.dest(in)
	var r vec
	for i := range r {
		r[i] = c.fp32(&e, in.op, d[i], b[i]) | c.fp32(&e, in.op, d[i]>>32, b[i]>>32)<<32
	}
	return c.setVec(in, r, &e)
}

// setVec writes a result if its exceptions are masked.
func (c *cpu) setVec(in *inst, r vec, e *float.Env) bool {
	if !c.raiseFP(e.Flags) {
		return false
	}
	*c.dest(in) = r
	return true
}

// opHadd is HADDPS/PD (op fpAdd), HSUBPS/PD (fpSub); bit 7 of op for doubles.
func opHadd(c *cpu, in *inst) bool {
	b, ok := c.source128(in)
	if !ok {
		return false
	}
	e := c.sse.env()
	a, op := *c.dest(in), in.op&0x7f
	var r vec
	if in.op&0x80 != 0 {
		r = vec{c.fp64(&e, op, a[0], a[1]), c.fp64(&e, op, b[0], b[1])}
	} else {
		r[0] = c.fp32(&e, op, a[0], a[0]>>32) | c.fp32(&e, op, a[1], a[1]>>32)<<32
		r[1] = c.fp32(&e, op, b[0], b[0]>>32) | c.fp32(&e, op, b[1], b[1]>>32)<<32
	}
	return c.setVec(in, r, &e)
}

// opAddsub is ADDSUBPS (op 0) and ADDSUBPD (op 1).
func opAddsub(c *cpu, in *inst) bool {
	b, ok := c.source128(in)
	if !ok {
		return false
	}
	e := c.sse.env()
	a := *c.dest(in)
	var r vec
	if in.op == 1 {
		r = vec{c.fp64(&e, fpSub, a[0], b[0]), c.fp64(&e, fpAdd, a[1], b[1])}
	} else {
		for i := range r {
			r[i] = c.fp32(&e, fpSub, a[i], b[i]) | c.fp32(&e, fpAdd, a[i]>>32, b[i]>>32)<<32
		}
	}
	return c.setVec(in, r, &e)
}

// compared evaluates predicate p of CMPccPS (SDM vol. 2, table 3-1).
func compared(e *float.Env, p uint8, a, b float.Num) bool {
	o := e.Compare(a, b, p&3 == 1 || p&3 == 2)
	var r bool
	switch p & 3 {
	case 0:
		r = o == float.Equal
	case 1:
		r = o == float.Less
	case 2:
		r = o == float.Less || o == float.Equal
	case 3:
		r = o == float.Unordered
	}
	return r != (p&4 != 0)
}

func cmp64(e *float.Env, p uint8, a, b uint64) uint64 {
	return -bit(compared(e, p, float.From64(a), float.From64(b)))
}

func cmp32(e *float.Env, p uint8, a, b uint64) uint64 {
	return uint64(-uint32(bit(compared(e, p, float.From32(uint32(a)), float.From32(uint32(b))))))
}

// opCmpfp is CMPPS (op 0), CMPPD (1), CMPSS (2), CMPSD (3).
func opCmpfp(c *cpu, in *inst) bool {
	b, ok := c.fpSource(in)
	if !ok {
		return false
	}
	e, p := c.sse.env(), uint8(in.imm&7)
	r := *c.dest(in)
	a := r
	switch in.op {
	case 0:
		for i := range r {
			r[i] = cmp32(&e, p, a[i], b[i]) | cmp32(&e, p, a[i]>>32, b[i]>>32)<<32
		}
	case 1:
		r = vec{cmp64(&e, p, a[0], b[0]), cmp64(&e, p, a[1], b[1])}
	case 2:
		r.setLow32(cmp32(&e, p, a[0], b[0]))
	case 3:
		r[0] = cmp64(&e, p, a[0], b[0])
	}
	return c.setVec(in, r, &e)
}

// fpSource reads the source of an instruction whose op has its element in the
// low two bits: PS, PD, SS, SD.
func (c *cpu) fpSource(in *inst) (v vec, ok bool) {
	switch in.op & 3 {
	case 2:
		v[0], ok = c.source32(in)
	case 3:
		v[0], ok = c.source64(in)
	default:
		return c.source128(in)
	}
	return v, ok
}

// opComis is UCOMISS (op 2), UCOMISD (3), COMISS (2|4), COMISD (3|4).
func opComis(c *cpu, in *inst) bool {
	v, ok := c.fpSource(in)
	if !ok {
		return false
	}
	a := c.dest(in)[0]
	if in.op&1 != 0 && ordinary64(a) && ordinary64(v[0]) {
		c.setArith(hostOrder(math.Float64frombits(a), math.Float64frombits(v[0])))
		return true
	}
	e := c.sse.env()
	var o float.Order
	if in.op&1 != 0 {
		o = e.Compare(float.From64(a), float.From64(v[0]), in.op&4 != 0)
	} else {
		o = e.Compare(float.From32(uint32(a)), float.From32(uint32(v[0])), in.op&4 != 0)
	}
	if !c.raiseFP(e.Flags) {
		return false
	}
	c.setArith(orderFlags(o))
	return true
}

// ordinary64 says that v is a normal number or zero.
func ordinary64(v uint64) bool { return plain64(v) || v<<1 == 0 }

// hostOrder is orderFlags of two numbers.
func hostOrder(x, y float64) uint64 {
	return bit(x < y) | bit(x == y)<<6
}

// orderFlags are ZF, PF and CF of a comparison.
func orderFlags(o float.Order) uint64 {
	switch o {
	case float.Less:
		return x86.FlagCF
	case float.Equal:
		return x86.FlagZF
	case float.Unordered:
		return x86.FlagZF | x86.FlagPF | x86.FlagCF
	}
	return 0
}

// approximate is RCPPS (op bit 2 clear) and RSQRTPS (set) of one element: exact
// to 12 bits, as the manual's error bound allows. Denormals count as zero.
func approximate(v uint64, rsqrt bool) uint64 {
	n := flushTiny(float.From32(uint32(v)))
	e := float.Env{FlushToZero: true}
	one := float.FromInt(1)
	short := float.Format{Precision: 13, EMin: -126, EMax: 127}
	if rsqrt {
		if n.Kind == float.KindZero {
			return uint64(float.Num{Kind: float.KindInf, Neg: n.Neg}.Pack32())
		}
		n = e.Sqrt(n, float.Double)
	}
	return uint64(e.Div(one, n, short).Pack32())
}

// opApprox is RCPPS, RSQRTPS and their scalar forms: op has the element in
// its low bits and 4 for RSQRT. They raise no exceptions.
func opApprox(c *cpu, in *inst) bool {
	v, ok := c.fpSource(in)
	if !ok {
		return false
	}
	rsqrt := in.op&4 != 0
	d := c.dest(in)
	if in.op&3 == 2 {
		d.setLow32(approximate(v[0], rsqrt))
		return true
	}
	for i := range v {
		d[i] = approximate(v[i], rsqrt) | approximate(v[i]>>32, rsqrt)<<32
	}
	return true
}

// opRound is ROUNDPS, ROUNDPD, ROUNDSS, ROUNDSD.
func opRound(c *cpu, in *inst) bool {
	v, ok := c.fpSource(in)
	if !ok {
		return false
	}
	e := c.sse.env()
	if in.imm&4 == 0 {
		e.Mode = float.Rounding(in.imm & 3)
	}
	r := *c.dest(in)
	one32 := func(x uint64) uint64 { return uint64(e.RoundInt(float.From32(uint32(x))).Pack32()) }
	one64 := func(x uint64) uint64 { return e.RoundInt(float.From64(x)).Pack64() }
	switch in.op {
	case 0:
		for i := range r {
			r[i] = one32(v[i]) | one32(v[i]>>32)<<32
		}
	case 1:
		r = vec{one64(v[0]), one64(v[1])}
	case 2:
		r.setLow32(one32(v[0]))
	case 3:
		r[0] = one64(v[0])
	}
	e.Flags &^= float.Denormal
	if in.imm&8 != 0 {
		e.Flags &^= float.Inexact
	}
	return c.setVec(in, r, &e)
}

// opDot is DPPS (op 0) and DPPD (op 1).
func opDot(c *cpu, in *inst) bool {
	b, ok := c.source128(in)
	if !ok {
		return false
	}
	e, a, imm := c.sse.env(), *c.dest(in), uint8(in.imm)
	if in.op == 1 {
		var p vec
		for i := range p {
			if imm>>(4+i)&1 != 0 {
				p[i] = c.fp64(&e, fpMul, a[i], b[i])
			}
		}
		sum := c.fp64(&e, fpAdd, p[0], p[1])
		return c.setVec(in, blend(vec{}, vec{sum, sum}, spread(imm&3, 64)), &e)
	}
	var p [4]uint64
	for i := range p {
		if s := 32 * (i % 2); imm>>(4+i)&1 != 0 {
			p[i] = c.fp32(&e, fpMul, a[i/2]>>s, b[i/2]>>s)
		}
	}
	sum := c.fp32(&e, fpAdd, c.fp32(&e, fpAdd, p[0], p[1]), c.fp32(&e, fpAdd, p[2], p[3]))
	sum |= sum << 32
	return c.setVec(in, blend(vec{}, vec{sum, sum}, spread(imm&15, 32)), &e)
}
