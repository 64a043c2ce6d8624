package acpi

import (
	"encoding/binary"
	"slices"
)

// A small encoder of AML (ACPI 6.4 §20.2), with what the DSDT needs. Each
// function returns the bytes of one term; terms nest by concatenation. Names
// and values come from this package alone.

// Opcodes (table 20-2).
const (
	opName       = 0x08
	opBytePrefix = 0x0a
	opWordPrefix = 0x0b
	opDWord      = 0x0c
	opString     = 0x0d
	opQWord      = 0x0e
	opScope      = 0x10
	opBuffer     = 0x11
	opPackage    = 0x12
	opMethod     = 0x14
	opExt        = 0x5b
	opLocal0     = 0x60
	opStore      = 0x70
	opAnd        = 0x7b
	opNotify     = 0x86
	opIf         = 0xa0

	extRegion = 0x80
	extField  = 0x81
	extDevice = 0x82

	spaceSystemIO = 1
	fieldDWord    = 0x03 | 2<<5 // DWordAcc, NoLock, WriteAsZeros
	serialized    = 1 << 3      // MethodFlags
)

// nameString encodes a path of one segment, which is padded to four characters
// with underscores (§20.2.2). At the root it needs no prefix.
func nameString(segment string) []byte {
	return append([]byte(segment), "____"[:4-len(segment)]...)
}

// packaged encodes an opcode, the length of what follows it, and that
// (§20.2.4). The length counts itself:
//
//	bits 7-6 of the first byte  number of bytes that follow it: 0…3
//	0: bits 5-0                 the length
//	else: bits 3-0              its low four bits; the other bytes continue them
func packaged(op []byte, body ...[]byte) []byte {
	b := slices.Clone(op)
	content := slices.Concat(body...)
	return append(append(b, packageLength(len(content))...), content...)
}

func packageLength(n int) []byte {
	if n+1 < 1<<6 {
		return []byte{uint8(n + 1)}
	}
	follow := 1
	for n+1+follow >= 1<<(4+8*follow) {
		follow++
	}
	n += 1 + follow
	b := []byte{uint8(follow<<6 | n&0xf)}
	for n >>= 4; follow > 0; follow-- {
		b = append(b, uint8(n))
		n >>= 8
	}
	return b
}

func scope(name string, body ...[]byte) []byte {
	return packaged([]byte{opScope}, append([][]byte{nameString(name)}, body...)...)
}

func device(name string, body ...[]byte) []byte {
	return packaged([]byte{opExt, extDevice}, append([][]byte{nameString(name)}, body...)...)
}

func method(name string, args uint8, body ...[]byte) []byte {
	return packaged([]byte{opMethod}, append([][]byte{nameString(name), {args | serialized}}, body...)...)
}

func named(name string, value []byte) []byte {
	return slices.Concat([]byte{opName}, nameString(name), value)
}

func pack(elements ...[]byte) []byte {
	return packaged([]byte{opPackage}, append([][]byte{{uint8(len(elements))}}, elements...)...)
}

func buffer(data ...[]byte) []byte {
	content := slices.Concat(data...)
	return packaged([]byte{opBuffer}, integer(uint64(len(content))), content)
}

// integer encodes v as ZeroOp, OneOp, or in as few bytes as it takes.
func integer(v uint64) []byte {
	le := binary.LittleEndian
	switch {
	case v <= 1:
		return []byte{uint8(v)}
	case v < 1<<8:
		return []byte{opBytePrefix, uint8(v)}
	case v < 1<<16:
		return le.AppendUint16([]byte{opWordPrefix}, uint16(v))
	case v < 1<<32:
		return le.AppendUint32([]byte{opDWord}, uint32(v))
	}
	return le.AppendUint64([]byte{opQWord}, v)
}

func text(s string) []byte { return append(append([]byte{opString}, s...), 0) }

// eisaID encodes an id like PNP0501 as an integer (§19.3.4, "EISAID"): three
// letters of five bits, four hexadecimal digits, in big-endian order.
func eisaID(id string) []byte {
	v := uint32(id[0]-'@')<<26 | uint32(id[1]-'@')<<21 | uint32(id[2]-'@')<<16
	for i := range 4 {
		d := uint32(id[3+i] - '0')
		if id[3+i] >= 'A' {
			d = uint32(id[3+i]-'A') + 10
		}
		v |= d << (12 - 4*i)
	}
	return binary.BigEndian.AppendUint32([]byte{opDWord}, v)
}

func region(name string, port, size uint64) []byte {
	return slices.Concat([]byte{opExt, extRegion}, nameString(name), []byte{spaceSystemIO}, integer(port), integer(size))
}

// field32 names the whole of a region of four bytes.
func field32(region, name string) []byte {
	return packaged([]byte{opExt, extField}, nameString(region), []byte{fieldDWord}, nameString(name), []byte{32})
}

// storeLocal0 is Local0 = name.
func storeLocal0(name string) []byte {
	return slices.Concat([]byte{opStore}, nameString(name), []byte{opLocal0})
}

// ifLocal0 is If (Local0 & mask) { body }.
func ifLocal0(mask uint64, body ...[]byte) []byte {
	test := slices.Concat([]byte{opAnd, opLocal0}, integer(mask), []byte{0})
	return packaged([]byte{opIf}, append([][]byte{test}, body...)...)
}

func notify(name string, value uint64) []byte {
	return slices.Concat([]byte{opNotify}, nameString(name), integer(value))
}
