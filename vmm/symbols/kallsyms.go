package symbols

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"strings"
)

// Kernels built with CONFIG_KALLSYMS carry their own symbol table, stripped or
// not: they name functions in their panics. scripts/kallsyms.c of the kernel
// writes it, into read-only data, each label aligned to 8 bytes:
//
//	kallsyms_num_syms      u32
//	kallsyms_names         for each symbol: length (one byte, or two of 7 bits
//	                       each, the low ones first), then that many tokens
//	kallsyms_markers       u32 for every 256th symbol: its offset in names
//	kallsyms_token_table   256 strings that end with 0
//	kallsyms_token_index   u16 for each token: its offset in the token table
//	kallsyms_offsets       i32 for each symbol
//	kallsyms_relative_base u64
//
// Kernels before 6.4 have the offsets and the base first. The first letter of a
// name that is put together from its tokens is its type, as in nm(1).
const (
	tokens        = 256
	markerEvery   = 256
	longestSymbol = 512 // KSYM_NAME_LEN since 6.1
	mostSymbols   = 1 << 20
)

// ErrNoKallsyms says that an image has no symbol table of its own.
var ErrNoKallsyms = errors.New("no symbol table in the kernel (built without CONFIG_KALLSYMS?)")

// FromKernel reads the table that an x86-64 Linux carries in its own memory.
// image is an unpacked kernel: its ELF file, or its memory from a page boundary
// on.
func FromKernel(image []byte) (*Table, error) {
	for from := 0; ; {
		at, from1 := findDigits(image, from)
		if at < 0 {
			return nil, ErrNoKallsyms
		}
		from = from1
		k := kallsyms{image: image}
		if k.findTokens(at) && k.findNames() && k.findOffsets() {
			return k.table()
		}
	}
}

// kallsyms is where the parts are in the image.
type kallsyms struct {
	image  []byte
	tokens [tokens]string

	tokenTable, tokenIndex   int
	num, names, markers, end int // end is that of the markers
	offsets                  int
	base                     uint64
	marks                    []uint32
}

// digits are ten tokens of every kernel: letters and digits that names use stand
// for themselves.
var digits = []byte("0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00")

func findDigits(image []byte, from int) (at, next int) {
	i := bytes.Index(image[from:], digits)
	if i < 0 {
		return -1, len(image)
	}
	return from + i, from + i + 1
}

func align8(n int) int { return (n + 7) &^ 7 }

// findTokens finds the token table around its digits, which start at at: the
// index behind it must fit.
func (k *kallsyms) findTokens(at int) bool {
	end := at
	for range tokens - '0' {
		n := bytes.IndexByte(k.image[end:min(end+longestSymbol, len(k.image))], 0)
		if n < 0 {
			return false
		}
		end += n + 1
	}
	k.tokenIndex = align8(end)
	if k.tokenIndex+2*tokens > len(k.image) {
		return false
	}
	index := func(i int) int { return int(binary.LittleEndian.Uint16(k.image[k.tokenIndex+2*i:])) }
	k.tokenTable = at - index('0')
	if k.tokenTable < 0 || k.tokenTable%8 != 0 || index(0) != 0 {
		return false
	}
	for i, off := 0, 0; i < tokens; i++ {
		n := bytes.IndexByte(k.image[k.tokenTable+off:end], 0)
		if n < 0 || index(i) != off {
			return false
		}
		k.tokens[i] = string(k.image[k.tokenTable+off : k.tokenTable+off+n])
		off += n + 1
	}
	return true
}

// findNames goes back from the token table: over the markers, which fall to 0,
// to the number of symbols, whose names must end where the markers begin.
func (k *kallsyms) findNames() bool {
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(k.image[at:]) }
	k.end = k.tokenTable
	if k.end >= 8 && u32(k.end-4) == 0 {
		k.end -= 4 // padding
	}
	for at, last := k.end-4, uint32(math.MaxUint32); ; at -= 4 {
		if at < 8 || u32(at) >= last || k.end-at > 4*mostSymbols/markerEvery {
			return false
		}
		if last = u32(at); last == 0 {
			k.markers = at
			break
		}
	}
	n := (k.end - k.markers) / 4
	k.marks = make([]uint32, n)
	for i := range k.marks {
		k.marks[i] = u32(k.markers + 4*i)
	}
	if k.markers%8 != 0 {
		return false
	}
	// Of the names behind the last marker only the most is known.
	first := k.markers - int(k.marks[n-1]) - markerEvery*(longestSymbol+2)
	for at := max(8, align8(first)); at <= k.markers-int(k.marks[n-1]); at += 8 {
		num := int(u32(at - 8))
		if num > (n-1)*markerEvery && num <= n*markerEvery && k.namesFit(at, num) {
			k.names, k.num = at, num
			return true
		}
	}
	return false
}

// next returns the tokens of the name at at, and where the name after it is.
func (k *kallsyms) next(at int) (name []byte, next int, ok bool) {
	if at+2 > len(k.image) {
		return nil, 0, false
	}
	n := int(k.image[at])
	at++
	if n&0x80 != 0 {
		n = n&0x7f | int(k.image[at])<<7
		at++
	}
	if n == 0 || n > longestSymbol || at+n > len(k.image) {
		return nil, 0, false
	}
	return k.image[at : at+n], at + n, true
}

func (k *kallsyms) namesFit(names, num int) bool {
	at := names
	for i := range num {
		if i%markerEvery == 0 && at-names != int(k.marks[i/markerEvery]) {
			return false
		}
		var ok bool
		if _, at, ok = k.next(at); !ok || at > k.markers {
			return false
		}
	}
	return align8(at) == k.markers
}

// findOffsets finds the addresses: behind the token index, or before the number
// of symbols. The base tells: it is an address of the kernel's half.
func (k *kallsyms) findOffsets() bool {
	isBase := func(at int) bool {
		if at < 0 || at+8 > len(k.image) {
			return false
		}
		k.base = binary.LittleEndian.Uint64(k.image[at:])
		return k.base>>32 == math.MaxUint32 && k.base%(1<<12) == 0
	}
	k.offsets = k.tokenIndex + 2*tokens
	if isBase(align8(k.offsets + 4*k.num)) {
		return true
	}
	base := k.names - 16
	k.offsets = base - align8(4*k.num)
	return k.offsets >= 0 && isBase(base)
}

// table puts the names together.
func (k *kallsyms) table() (*Table, error) {
	offset := func(i int) int32 { return int32(binary.LittleEndian.Uint32(k.image[k.offsets+4*i:])) }
	// With CONFIG_KALLSYMS_ABSOLUTE_PERCPU what is not negative is an address
	// in a CPU's area, and the others count down from the base.
	perCPU := false
	for i := range k.num {
		perCPU = perCPU || offset(i) < 0
	}
	t := new(Table)
	at := k.names
	var b strings.Builder
	for i := range k.num {
		name, next, _ := k.next(at)
		at = next
		b.Reset()
		for _, c := range name {
			b.WriteString(k.tokens[c])
		}
		off := offset(i)
		addr := k.base + uint64(uint32(off))
		if perCPU {
			addr = k.base - 1 - uint64(int64(off))
		}
		if s := b.String(); len(s) > 1 && strings.Contains("tTwW", s[:1]) && !(perCPU && off >= 0) {
			t.list = append(t.list, symbol{addr: addr, name: s[1:]})
		}
	}
	return t.sorted()
}
