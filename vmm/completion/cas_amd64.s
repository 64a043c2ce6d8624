#include "textflag.h"

// func compareAndSwap128(p *[16]byte, oldLo, oldHi, newLo, newHi uint64) (lo, hi uint64, swapped bool)
TEXT ·compareAndSwap128(SB), NOSPLIT, $0-57
	MOVQ p+0(FP), DI
	MOVQ oldLo+8(FP), AX
	MOVQ oldHi+16(FP), DX
	MOVQ newLo+24(FP), BX
	MOVQ newHi+32(FP), CX
	LOCK
	CMPXCHG16B (DI)
	SETEQ swapped+56(FP)
	MOVQ AX, lo+40(FP)
	MOVQ DX, hi+48(FP)
	RET
