package softcpu

import (
	"math"

	"github.com/vitrine-vmm/vitrine/vmm/softcpu/internal/float"
)

// Conversions (SDM vol. 2, CVT*).

func cvt32to64(e *float.Env, v uint64) uint64 {
	if plain32(v) {
		return math.Float64bits(float64(math.Float32frombits(uint32(v))))
	}
	return e.To(float.From32(uint32(v)), float.Double).Pack64()
}

func cvt64to32(e *float.Env, v uint64) uint64 {
	return uint64(e.To(float.From64(v), float.Single).Pack32())
}

// intTo rounds a signed integer to single (op 32) or double.
func intTo32(e *float.Env, v int64) uint64 {
	return uint64(e.To(float.FromInt(v), float.Single).Pack32())
}

func intTo64(e *float.Env, v int64) uint64 {
	if v > -1<<53 && v < 1<<53 {
		return math.Float64bits(float64(v)) // exact
	}
	return e.To(float.FromInt(v), float.Double).Pack64()
}

// toInt rounds a single or double to an integer; DE is not among the flags of
// these conversions.
func toInt(e *float.Env, n float.Num, width uint8) uint64 {
	return uint64(e.ToInt(n, width))
}

// opCvtsi2 is CVTSI2SS (op 2) and CVTSI2SD (op 3).
func opCvtsi2(c *cpu, in *inst) bool {
	v, ok := c.readRM(in)
	if !ok {
		return false
	}
	e, r := c.sse.env(), *c.dest(in)
	n := int64(signExtend(v, in.sh))
	if in.op == 2 {
		r.setLow32(intTo32(&e, n))
	} else {
		r[0] = intTo64(&e, n)
	}
	return c.setVec(in, r, &e)
}

// opCvt2si is CVTSS2SI, CVTSD2SI and, with 4 in op, CVTTSS2SI, CVTTSD2SI. The
// size of the general register is the operand size.
func opCvt2si(c *cpu, in *inst) bool {
	v, ok := c.fpSource(in)
	if !ok {
		return false
	}
	if in.op == 7 && c.plainMode() && c.sse.mxcsr&float.Inexact != 0 && plain64(v[0]) {
		if x := math.Float64frombits(v[0]); x > -1<<31 && x < 1<<31 {
			c.setGPR(in.reg, in.size, uint64(int64(x)))
			return true
		}
	}
	e := c.sse.env()
	if in.op&4 != 0 {
		e.Mode = float.Zero
	}
	n := float.From64(v[0])
	if in.op&3 == 2 {
		n = float.From32(uint32(v[0]))
	}
	r := toInt(&e, n, in.size*8)
	if !c.raiseFP(e.Flags) {
		return false
	}
	c.setGPR(in.reg, in.size, r)
	return true
}

// opCvtss2sd and opCvtsd2ss.
func opCvtss2sd(c *cpu, in *inst) bool {
	v, ok := c.source32(in)
	if !ok {
		return false
	}
	e, r := c.sse.env(), *c.dest(in)
	r[0] = cvt32to64(&e, v)
	return c.setVec(in, r, &e)
}

func opCvtsd2ss(c *cpu, in *inst) bool {
	v, ok := c.source64(in)
	if !ok {
		return false
	}
	e, r := c.sse.env(), *c.dest(in)
	r.setLow32(cvt64to32(&e, v))
	return c.setVec(in, r, &e)
}

func opCvtps2pd(c *cpu, in *inst) bool {
	v, ok := c.source64(in)
	if !ok {
		return false
	}
	e := c.sse.env()
	return c.setVec(in, vec{cvt32to64(&e, v), cvt32to64(&e, v>>32)}, &e)
}

func opCvtpd2ps(c *cpu, in *inst) bool {
	v, ok := c.source128(in)
	if !ok {
		return false
	}
	e := c.sse.env()
	return c.setVec(in, vec{cvt64to32(&e, v[0]) | cvt64to32(&e, v[1])<<32}, &e)
}

func opCvtdq2ps(c *cpu, in *inst) bool {
	v, ok := c.source128(in)
	if !ok {
		return false
	}
	e := c.sse.env()
	var r vec
	for i, x := range v {
		r[i] = intTo32(&e, int64(int32(x))) | intTo32(&e, int64(x)>>32)<<32
	}
	return c.setVec(in, r, &e)
}

func opCvtdq2pd(c *cpu, in *inst) bool {
	v, ok := c.source64(in)
	if !ok {
		return false
	}
	e := c.sse.env()
	return c.setVec(in, vec{intTo64(&e, int64(int32(v))), intTo64(&e, int64(v)>>32)}, &e)
}

func int32Of(e *float.Env, n float.Num) uint64 { return toInt(e, n, 32) & 0xffffffff }

// opCvtps2dq is CVTPS2DQ (op 0) and CVTTPS2DQ (op 4).
func opCvtps2dq(c *cpu, in *inst) bool {
	v, ok := c.source128(in)
	if !ok {
		return false
	}
	e := c.sse.env()
	if in.op != 0 {
		e.Mode = float.Zero
	}
	var r vec
	for i, x := range v {
		r[i] = int32Of(&e, float.From32(uint32(x))) | int32Of(&e, float.From32(uint32(x>>32)))<<32
	}
	return c.setVec(in, r, &e)
}

// opCvtpd2dq is CVTPD2DQ (op 0) and CVTTPD2DQ (op 4).
func opCvtpd2dq(c *cpu, in *inst) bool {
	v, ok := c.source128(in)
	if !ok {
		return false
	}
	e := c.sse.env()
	if in.op != 0 {
		e.Mode = float.Zero
	}
	return c.setVec(in, vec{int32Of(&e, float.From64(v[0])) | int32Of(&e, float.From64(v[1]))<<32}, &e)
}
