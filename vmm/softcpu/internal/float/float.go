// Package float is binary floating-point arithmetic as x86 processors do it:
// in single, double and double-extended precision, with all rounding modes and
// exception flags (SDM vol. 1, 4.2, 4.8, 4.9; IEEE 754-2008). It is exact on
// any host, and slow: who uses it keeps the host's own arithmetic for operands
// and modes in which the two cannot differ.
package float

import "math/bits"

// Exception flags, in the places of MXCSR and the x87 status word.
const (
	Invalid   = 1 << 0
	Denormal  = 1 << 1
	DivByZero = 1 << 2
	Overflow  = 1 << 3
	Underflow = 1 << 4
	Inexact   = 1 << 5
)

// Rounding is a rounding mode, as MXCSR and the x87 control word encode it.
type Rounding uint8

// Rounding modes.
const (
	Nearest Rounding = iota
	Down
	Up
	Zero
)

// Env is the environment of an operation and collects its flags.
type Env struct {
	Mode  Rounding
	Flags uint8
	// Roundup is set by a rounding that went away from zero: x87's C1.
	Roundup bool
	// FlushToZero makes tiny results zero, DenormalsAreZero tiny operands
	// (MXCSR.FTZ, DAZ).
	FlushToZero, DenormalsAreZero bool
	// UnderflowUnmasked has a tiny result raise Underflow even if it is
	// exact.
	UnderflowUnmasked bool
	// OverflowUnmasked and, on the x87, UnderflowUnmasked give results that
	// are too large or small for a register with their exponents moved by
	// 24576, for the handler (SDM vol. 1, 8.5.4, 8.5.5).
	OverflowUnmasked bool
	// X87 chooses between two NaNs as the x87 does: the larger significand.
	X87 bool
}

// Format is a binary format.
type Format struct {
	Precision  uint8 // bits of the significand, the first one included
	EMin, EMax int32 // exponents of normal numbers
}

// Formats. Extended24 and Extended53 are the results of x87 operations with
// reduced precision control: the significand is short, the exponent is not.
var (
	Single     = Format{24, -126, 127}
	Double     = Format{53, -1022, 1023}
	Extended   = Format{64, -16382, 16383}
	Extended53 = Format{53, -16382, 16383}
	Extended24 = Format{24, -16382, 16383}
)

// Kind classifies a number.
type Kind uint8

// Kinds.
const (
	KindZero Kind = iota
	KindFinite
	KindInf
	KindNaN
	KindInvalid // an x87 encoding that is no number: an unnormal, a pseudo-infinity
)

// Num is an unpacked number: (-1)^Neg × Frac×2^-63 × 2^Exp with bit 63 of Frac
// set for a finite one. A NaN has its significand in Frac, the quiet bit in
// bit 62.
type Num struct {
	Kind Kind
	Neg  bool
	// Tiny says that the number was unpacked from a denormal.
	Tiny bool
	Exp  int32
	Frac uint64
}

const quiet = 1 << 62

// DefaultNaN is what an invalid operation gives.
var DefaultNaN = Num{Kind: KindNaN, Neg: true, Frac: 3 << 62}

// Signaling says whether n is a signaling NaN.
func (n Num) Signaling() bool { return n.Kind == KindNaN && n.Frac&quiet == 0 }

// unpack is for formats with an implicit first bit, w bits in all.
func unpack(sign bool, exp, maxExp int32, frac uint64, f Format) Num {
	n := Num{Neg: sign}
	shift := 64 - f.Precision // the fraction's top bit comes to bit 62
	switch {
	case exp == maxExp && frac == 0:
		n.Kind = KindInf
	case exp == maxExp:
		n.Kind, n.Frac = KindNaN, 1<<63|frac<<shift
	case exp != 0:
		n.Kind, n.Exp, n.Frac = KindFinite, exp+f.EMin-1, 1<<63|frac<<shift
	case frac != 0:
		n.Kind, n.Tiny = KindFinite, true
		v := frac << shift
		z := bits.LeadingZeros64(v)
		n.Exp, n.Frac = f.EMin-int32(z), v<<z
	}
	return n
}

// From32 unpacks a single.
func From32(v uint32) Num {
	return unpack(v>>31 != 0, int32(v>>23&0xff), 0xff, uint64(v&0x7fffff), Single)
}

// From64 unpacks a double.
func From64(v uint64) Num {
	return unpack(v>>63 != 0, int32(v>>52&0x7ff), 0x7ff, v&(1<<52-1), Double)
}

// From80 unpacks a double extended: sign and exponent in se, the significand
// with its explicit first bit in frac.
func From80(se uint16, frac uint64) Num {
	n := Num{Neg: se>>15 != 0}
	exp := int32(se & 0x7fff)
	switch {
	case exp == 0x7fff:
		switch {
		case frac == 1<<63:
			n.Kind = KindInf
		case frac>>63 != 0:
			n.Kind, n.Frac = KindNaN, frac
		default:
			n.Kind = KindInvalid
		}
	case exp != 0 && frac>>63 == 0:
		n.Kind = KindInvalid
	case frac == 0:
	case exp == 0:
		z := bits.LeadingZeros64(frac)
		n.Kind, n.Tiny, n.Exp, n.Frac = KindFinite, true, -16382-int32(z), frac<<z
	default:
		n.Kind, n.Exp, n.Frac = KindFinite, exp-16383, frac
	}
	return n
}

func pack(n Num, f Format, expBits uint8) uint64 {
	width := f.Precision - 1
	maxExp := uint64(1)<<expBits - 1
	var v uint64
	switch n.Kind {
	case KindInf:
		v = maxExp << width
	case KindNaN, KindInvalid:
		v = maxExp<<width | n.Frac<<1>>(65-f.Precision)
	case KindFinite:
		if n.Exp < f.EMin {
			v = n.Frac >> (64 - f.Precision) >> uint32(f.EMin-n.Exp)
		} else {
			v = uint64(n.Exp-f.EMin+1)<<width | n.Frac<<1>>(65-f.Precision)
		}
	}
	if n.Neg {
		v |= 1 << (width + expBits)
	}
	return v
}

// Pack32 packs a number that has been rounded to Single.
func (n Num) Pack32() uint32 { return uint32(pack(n, Single, 8)) }

// Pack64 packs a number that has been rounded to Double.
func (n Num) Pack64() uint64 { return pack(n, Double, 11) }

// Pack80 packs a number that has been rounded to Extended.
func (n Num) Pack80() (se uint16, frac uint64) {
	switch n.Kind {
	case KindInf:
		se, frac = 0x7fff, 1<<63
	case KindNaN, KindInvalid:
		se, frac = 0x7fff, n.Frac
	case KindFinite:
		if n.Exp < -16382 {
			frac = n.Frac >> uint32(-16382-n.Exp)
		} else {
			se, frac = uint16(n.Exp+16383), n.Frac
		}
	}
	if n.Neg {
		se |= 1 << 15
	}
	return se, frac
}

const exponentShift = 24576

// Round makes hi:lo × 2^(exp-127) a number of format f; bit 63 of hi is set,
// and bit 0 of lo stands for everything below it.
func (e *Env) Round(neg bool, exp int32, hi, lo uint64, f Format) Num {
	n := Num{Kind: KindFinite, Neg: neg, Exp: exp}
	drop := 64 - uint32(f.Precision) // bits of hi that go
	tiny := false
	if exp < f.EMin {
		tiny = exp < f.EMin-1 || !e.roundsUpTo(neg, hi, lo, drop)
		if tiny && e.FlushToZero && !e.UnderflowUnmasked {
			e.Flags |= Underflow | Inexact
			return Num{Neg: neg}
		}
		if tiny && e.UnderflowUnmasked && f.EMin == Extended.EMin {
			n.Exp += exponentShift
		} else {
			drop += uint32(min(f.EMin-exp, 70))
		}
	}
	keep, rest, sticky := split(hi, lo, drop)
	inexact := rest != 0 || sticky
	unit := uint64(1)
	e.Roundup = false
	if drop < 64 {
		unit <<= drop
	}
	if inexact && e.away(neg, keep&unit != 0 && drop < 64, rest, sticky) {
		e.Roundup = true
		switch {
		case drop >= 64: // everything goes; what remains is the least number
			keep, n.Exp = 1<<63, f.EMin-int32(f.Precision)+1
		default:
			sum, carry := bits.Add64(keep, unit, 0)
			if carry != 0 {
				sum, n.Exp = 1<<63, n.Exp+1
			}
			keep = sum
		}
	}
	n.Frac = keep
	return e.finish(n, f, tiny, inexact)
}

// finish raises the flags of a rounded number and replaces overflows.
func (e *Env) finish(n Num, f Format, tiny, inexact bool) Num {
	if tiny && (inexact || e.UnderflowUnmasked) {
		e.Flags |= Underflow
	}
	if n.Frac == 0 {
		e.Flags |= Inexact
		return Num{Neg: n.Neg}
	}
	if n.Exp > f.EMax && e.OverflowUnmasked && f.EMax == Extended.EMax {
		e.Flags |= Overflow
		n.Exp -= exponentShift
	} else if n.Exp > f.EMax {
		e.Flags |= Overflow | Inexact
		return e.overflow(n.Neg, f)
	}
	if inexact {
		e.Flags |= Inexact
	}
	return n
}

func (e *Env) overflow(neg bool, f Format) Num {
	if e.Mode == Zero || e.Mode == Down && !neg || e.Mode == Up && neg {
		e.Roundup = false
		return Num{Kind: KindFinite, Neg: neg, Exp: f.EMax, Frac: ^uint64(0) << (64 - f.Precision)}
	}
	e.Roundup = true
	return Num{Kind: KindInf, Neg: neg}
}

// split cuts the low drop bits off hi: rest has them left-aligned, sticky says
// whether there is anything below.
func split(hi, lo uint64, drop uint32) (keep, rest uint64, sticky bool) {
	switch {
	case drop == 0:
		return hi, lo, false
	case drop < 64:
		return hi >> drop << drop, hi<<(64-drop) | lo>>drop, lo<<(64-drop) != 0
	case drop == 64:
		return 0, hi, lo != 0
	}
	return 0, hi >> min(drop-64, 63), lo != 0 || hi<<(64-min(drop-64, 63)) != 0
}

// away says whether an inexact value is rounded away from zero.
func (e *Env) away(neg, odd bool, rest uint64, sticky bool) bool {
	switch e.Mode {
	case Down:
		return neg
	case Up:
		return !neg
	case Zero:
		return false
	}
	const half = 1 << 63
	return rest > half || rest == half && (sticky || odd)
}

// roundsUpTo says whether rounding with unbounded exponent carries into the
// next power of two: a number just below the normal ones is then not tiny.
func (e *Env) roundsUpTo(neg bool, hi, lo uint64, drop uint32) bool {
	keep, rest, sticky := split(hi, lo, drop)
	all := ^uint64(0)
	if drop > 0 {
		all = all >> drop << drop
	}
	if keep != all || rest == 0 && !sticky {
		return false
	}
	return e.away(neg, true, rest, sticky)
}

// To rounds n to a format; a NaN becomes quiet, raising Invalid if it was not.
func (e *Env) To(n Num, f Format) Num {
	switch n.Kind {
	case KindInvalid:
		e.Flags |= Invalid
		return DefaultNaN
	case KindNaN:
		if n.Signaling() {
			e.Flags |= Invalid
		}
		n.Frac = (n.Frac | quiet) >> (64 - f.Precision) << (64 - f.Precision)
		return n
	case KindFinite:
		if n = e.in(n); n.Kind == KindZero {
			return n
		}
		if n.Tiny {
			e.Flags |= Denormal
		}
		return e.Round(n.Neg, n.Exp, n.Frac, 0, f)
	}
	return n
}

// in is an operand, a denormal being zero if the environment says so.
func (e *Env) in(n Num) Num {
	if n.Tiny && e.DenormalsAreZero {
		return Num{Neg: n.Neg}
	}
	return n
}

// nans handles operands that are not numbers. done says that r is the result.
func (e *Env) nans(a, b Num) (r Num, done bool) {
	if a.Kind == KindInvalid || b.Kind == KindInvalid {
		e.Flags |= Invalid
		return DefaultNaN, true
	}
	if a.Kind != KindNaN && b.Kind != KindNaN {
		return r, false
	}
	if a.Signaling() || b.Signaling() {
		e.Flags |= Invalid
	}
	r = a
	switch {
	case a.Kind != KindNaN:
		r = b
	case b.Kind == KindNaN && e.X87:
		r = largerNaN(a, b)
	}
	r.Frac |= quiet
	return r, true
}

// largerNaN is SDM vol. 1, table 4-7, for the x87.
func largerNaN(a, b Num) Num {
	if a.Signaling() != b.Signaling() {
		if a.Signaling() {
			return b
		}
		return a
	}
	if a.Frac > b.Frac || a.Frac == b.Frac && !a.Neg {
		return a
	}
	return b
}

func (e *Env) invalid() Num {
	e.Flags |= Invalid
	return DefaultNaN
}

func (e *Env) denormals(a, b Num) {
	if a.Tiny || b.Tiny {
		e.Flags |= Denormal
	}
}
