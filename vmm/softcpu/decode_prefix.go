package softcpu

// maybePrefix are the bytes that are prefixes, REX in 64-bit mode alone.
var maybePrefix = func() (t [256]bool) {
	for _, b := range []uint8{0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3} {
		t[b] = true
	}
	for b := 0x40; b < 0x50; b++ {
		t[b] = true
	}
	return t
}()

// prefixes reads legacy prefixes and REX, and returns the first opcode byte
// (SDM vol. 2, 2.1.1, 2.2.1).
func (d *decoder) prefixes(in *inst) uint8 {
	for {
		b := d.byte()
		if !maybePrefix[b] {
			return b
		}
		switch b {
		case 0x26, 0x2e, 0x36, 0x3e:
			if d.mode&modeSize != mode64 {
				d.segment = int8(b >> 3 & 3)
			}
		case 0x64, 0x65:
			d.segment = int8(b - 0x60)
		case 0x66:
			d.op16 = true
			in.flags |= flagOp16
		case 0x67:
			d.addr = true
		case 0xf0:
			in.flags |= flagLock
		case 0xf2, 0xf3:
			in.rep = b
		default:
			if d.mode&modeSize != mode64 {
				return b
			}
			// REX counts only directly before the opcode.
			next := d.byte()
			if d.err == decodeOK && maybePrefix[next] {
				d.pos--
				continue
			}
			d.rex = b
			in.flags |= flagREX
			if b&8 != 0 {
				in.flags |= flagREXW
			}
			return next
		}
		if d.err != decodeOK {
			return 0
		}
	}
}
