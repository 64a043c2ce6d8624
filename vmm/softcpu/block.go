package softcpu

import (
	"sync"
	"time"
)

// block is a run of instructions that is executed from its start.
type block struct {
	ins  []inst
	link [2]*block // where it goes on: 0 falling through, 1 branching
	key  blockKey
	off  uint16 // of the first instruction in its page
	n    uint16 // instructions of the guest
	// An instruction that lies in two pages has a block of its own. second is
	// the physical address of the next one; twice: it is not the same page.
	cross, twice bool
	second       uint64

	chain   *block    // the next in its slot of the table
	sibling [2]*block // the next of its page, and of its second one
}

// blockKey is the physical address of the first byte, and the mode in the
// bits above it.
type blockKey uint64

func keyOf(phys uint64, m mode) blockKey { return blockKey(phys | uint64(m)<<48) }

// staleKey is that of a block which is no longer found.
const staleKey = ^blockKey(0)

func (k blockKey) page() uint64 { return uint64(k) & (1<<48 - 1) &^ pageMask }

const (
	maxBlock  = 32 // instructions
	tableSize = 16 << 10
	// The arenas of all CPUs together have room for arenaInsts instructions,
	// but the one of each has at most mostInsts and at least leastInsts; 64
	// bytes each, and a quarter as many blocks of 64 bytes. They grow by
	// pieceInsts.
	arenaInsts = 192 << 10
	mostInsts  = 128 << 10
	leastInsts = 16 << 10
	pieceInsts = 16 << 10
)

// codeCache has the decoded blocks of one CPU. Blocks live in an arena that is
// emptied at once when it is full, so that decoding makes no garbage. The arena
// is made piece by piece, and shrinks again when the CPU has little to do.
type codeCache struct {
	insts  []inst  // of the piece being filled
	blocks []block // of it
	pieces []codePiece
	at     int // the piece being filled
	most   int // pieces
	idle   idleCheck
	table  []*block // by key, each the first of a chain
	pages  map[uint64]*codePage
	recent *codePage // the last one looked up
	d      decoder
	held   bool  // the instruction just decoded is an STI
	last   *inst // the comparison just decoded, which a jump may be fused with
	lastOp *opcode

	mu    sync.Mutex
	dirty []uint64 // physical pages that others wrote to; guarded by mu
}

// codePage is a page with code: its physical address and its blocks, the
// youngest first.
type codePage struct {
	phys   uint64
	blocks *block
}

// init makes the cache of one of so many CPUs.
func (cc *codeCache) init(cpus int) {
	cc.most = max(min(arenaInsts/cpus, mostInsts), leastInsts) / pieceInsts
	cc.table = make([]*block, tableSize)
	cc.pages = make(map[uint64]*codePage)
	cc.idle.patience = leastPatience
	cc.pieces = append(make([]codePiece, 0, cc.most), newCodePiece())
	cc.fill(0)
}

// codePiece is a part of the arena: empty slices with room for its blocks.
type codePiece struct {
	insts  []inst
	blocks []block
}

func newCodePiece() codePiece {
	return codePiece{make([]inst, 0, pieceInsts), make([]block, 0, pieceInsts/4)}
}

// fill goes on with piece i, which has no blocks.
func (cc *codeCache) fill(i int) {
	cc.at, cc.insts, cc.blocks = i, cc.pieces[i].insts, cc.pieces[i].blocks
}

// makeRoom goes on with the next piece, or the first when all are full.
func (c *cpu) makeRoom() {
	cc := &c.code
	if len(cc.pieces) < cc.most && cc.at == len(cc.pieces)-1 {
		cc.pieces = append(cc.pieces, newCodePiece())
	}
	if cc.at == len(cc.pieces)-1 {
		c.dropCode()
		return
	}
	cc.fill(cc.at + 1)
}

// idleCheck notices that a CPU sleeps nearly always.
type idleCheck struct {
	since    time.Time // of the last look
	icount   uint64    // then
	patience time.Duration
}

const (
	leastPatience = time.Second
	mostPatience  = time.Minute
	// A CPU with fewer instructions than this in each second is idle: timers
	// and the like need a tenth of it.
	idlePerSecond = 2_000_000
)

// resting looks, when the CPU is about to sleep, whether it has been idle, and
// then keeps no more than one piece of decoded code: that of an idle loop and
// its interrupts. It says whether it let go of something. Each time it is in
// less of a hurry, for guests that work now and then.
func (c *cpu) resting(now time.Time) bool {
	cc := &c.code
	k := &cc.idle
	span := now.Sub(k.since)
	if span < k.patience {
		return false
	}
	idle := !k.since.IsZero() && float64(c.icount-k.icount) < idlePerSecond*span.Seconds()
	k.since, k.icount = now, c.icount
	if !idle {
		return false
	}
	k.patience = min(2*k.patience, mostPatience)
	clear(cc.pieces)
	cc.pieces = append(cc.pieces[:0], newCodePiece()) // the old blocks have links to one another
	c.dropCode()
	cc.pages = make(map[uint64]*codePage)
	return true
}

func (k blockKey) slot() int { return int((k ^ k>>14 ^ k>>43) & (tableSize - 1)) }

// findBlock makes the block at cpu.rip the next one. Without one it raises the
// fault of fetching the instruction.
func (c *cpu) findBlock() bool {
	lin := c.rip + c.regs[rSeg+segCS]
	if c.mode&modeSize != mode64 {
		lin = uint64(uint32(lin))
		if c.rip > uint64(c.seg[segCS].limit) {
			return c.raiseCode(vectorGP, 0)
		}
	}
	e := &c.tx[lin>>12&tlbMask]
	if e.tag != lin&^pageMask {
		if _, _, ok := c.page(lin, accFetch); !ok {
			return false
		}
	}
	c.regs[rPage] = c.rip - lin&pageMask
	key := keyOf(e.phys|lin&pageMask, c.mode)
	b := c.code.table[key.slot()]
	if b == nil || b.key != key || b.cross {
		if b = c.missBlock(key, lin, e); b == nil {
			return false
		}
	}
	if c.linkTo >= 0 && !b.cross {
		c.cur.link[c.linkTo] = b
	}
	c.linkTo = -1
	c.next = b
	return true
}

// missBlock finds a block that is not the first in its slot, or decodes it, and
// makes it the first.
func (c *cpu) missBlock(key blockKey, lin uint64, e *codeEntry) *block {
	b := c.code.unchain(key)
	if b != nil && b.cross {
		second, ok := c.secondPage(lin)
		if !ok {
			c.code.enchain(b)
			return nil
		}
		if second.phys != b.second {
			c.code.enchain(b)
			c.dropPage(key.page())
			b = nil
		}
	}
	if b == nil {
		b = c.build(key, lin, e)
	}
	if b != nil {
		c.code.enchain(b)
	}
	return b
}

// enchain makes b the first block of its slot.
func (cc *codeCache) enchain(b *block) {
	first := &cc.table[b.key.slot()]
	b.chain, *first = *first, b
}

// unchain takes the block with that key, if there is one, out of its slot.
func (cc *codeCache) unchain(key blockKey) *block {
	for at := &cc.table[key.slot()]; *at != nil; at = &(*at).chain {
		if b := *at; b.key == key {
			*at, b.chain = b.chain, nil
			return b
		}
	}
	return nil
}

// secondPage translates the page behind the one of lin, for fetching.
func (c *cpu) secondPage(lin uint64) (codeEntry, bool) {
	lin = lin&^pageMask + pageSize
	e := &c.tx[lin>>12&tlbMask]
	if e.tag != lin {
		if _, _, ok := c.page(lin, accFetch); !ok {
			return codeEntry{}, false
		}
	}
	return *e, true
}

// floating is what a fetch from where there is no memory reads.
var floating = func() (p hostPage) {
	for i := range p {
		p[i] = 0xff
	}
	return p
}()

func (e *codeEntry) bytes() *hostPage {
	if e.page == nil {
		return &floating
	}
	return e.page
}

// build decodes the block at lin.
func (c *cpu) build(key blockKey, lin uint64, e *codeEntry) *block {
	cc := &c.code
	if len(cc.insts)+maxBlock*2+4 > cap(cc.insts) || len(cc.blocks) == cap(cc.blocks) {
		c.makeRoom()
	}
	first, phys := len(cc.insts), e.phys
	d := &cc.d
	*d = decoder{c: c, mode: c.mode, page: e.bytes(), pos: int(lin & pageMask)}
	b := block{key: key, off: uint16(lin & pageMask)}
	cc.last, cc.held = nil, false
	look := c.debug.looking && c.mode&modeStep != 0
	if look {
		cc.insts = append(cc.insts, inst{fn: opLook, off: b.off, flags: flagImplied})
	}
	for {
		ended, ok := c.decodeInto(d, &b, lin)
		if !ok {
			cc.insts = cc.insts[:first]
			return nil
		}
		if ended {
			break
		}
	}
	b.ins = cc.insts[first:len(cc.insts):len(cc.insts)]
	if look {
		b.ins[0].next = b.ins[1].next
	}
	cc.blocks = append(cc.blocks, b)
	p := &cc.blocks[len(cc.blocks)-1]
	c.register(phys, p, 0)
	if p.twice = p.cross && p.second != phys&^pageMask; p.twice {
		c.register(p.second, p, 1)
	}
	return p
}

// decodeInto appends the next instruction to b, and says whether b ends with
// it. ok is false if the block is empty because of a fault.
func (c *cpu) decodeInto(d *decoder, b *block, lin uint64) (ended, ok bool) {
	cc := &c.code
	cc.insts = append(cc.insts, inst{})
	in := &cc.insts[len(cc.insts)-1]
	start := d.pos
	d.decode(in)
	if d.err == decodeCross && b.n == 0 {
		second, ok := c.secondPage(lin)
		if !ok {
			return false, false
		}
		d.second, b.second, b.cross = second.bytes(), second.phys, true
		d.pos, d.err = start, decodeOK
		d.decode(in)
	}
	alone := isAlone(d, in)
	switch {
	case d.err == decodeTooLong && b.n == 0:
		*in = inst{fn: opGP0, off: uint16(start)}
	case b.n > 0 && (d.err != decodeOK || alone) && cc.held:
		cc.insts = cc.insts[:len(cc.insts)-1]
		cc.insts[len(cc.insts)-1].fn = opSTIEnd
		return true, true
	case d.err != decodeOK, b.n > 0 && alone:
		*in = inst{fn: opFallthrough, off: uint16(start), next: uint16(start), flags: flagImplied}
		return true, true
	}
	b.n++
	if in.mem && d.op.attr&aNoData == 0 && c.checked(in.seg) {
		c.insertCheck(d, in)
		in = &cc.insts[len(cc.insts)-1]
		cc.last = nil
	}
	in = c.fuse(b, d, in)
	return c.closeBlock(d, b, in), true
}

// isAlone says whether an instruction has a block of its own. A repeated one
// has: where it is left in the middle, those before it are done and counted.
func isAlone(d *decoder, in *inst) bool {
	return d.op.attr&aAlone != 0 || d.op.attr&aString != 0 && in.rep != 0
}

// checked says whether accesses through a segment need a check. That ES, SS and
// DS are flat is part of the mode; CS, which cannot be written, and FS and GS
// are looked at each time.
func (c *cpu) checked(seg uint8) bool {
	if c.mode&modeSize == mode64 {
		return false
	}
	return c.mode&modeChecks != 0 || seg == rSeg+segCS || seg == rSeg+segFS || seg == rSeg+segGS
}

// closeBlock says whether b ends with in, and appends the jump to the next
// block where in is not itself the end.
func (c *cpu) closeBlock(d *decoder, b *block, in *inst) bool {
	if d.op.attr&aEnd != 0 || d.err == decodeTooLong {
		return true
	}
	hold := d.op.attr&aHold != 0
	full := b.n >= maxBlock && !hold || isAlone(d, in)
	if !full && !b.cross && d.pos < pageSize && c.mode&modeStep == 0 {
		c.code.held = hold
		return false
	}
	if hold {
		in.fn = opSTIEnd
		return true
	}
	c.code.insts = append(c.code.insts, inst{fn: opFallthrough, off: in.next, next: in.next, flags: flagImplied})
	return true
}

// register notes that b has code of the page phys, its first or second one, so
// that stores to the page are seen from now on.
func (c *cpu) register(phys uint64, b *block, which int) {
	cc := &c.code
	phys &^= pageMask
	p := cc.recent
	if p == nil || p.phys != phys {
		if p = cc.pages[phys]; p == nil {
			p = &codePage{phys: phys}
			cc.pages[phys] = p
			c.vm.watch(phys)
		}
		cc.recent = p
	}
	b.sibling[which], p.blocks = p.blocks, b
}

// dropPage makes every block of the page phys stale.
func (c *cpu) dropPage(phys uint64) {
	cc := &c.code
	p := cc.pages[phys]
	if p == nil {
		return
	}
	delete(cc.pages, phys)
	cc.recent = nil
	for b := p.blocks; b != nil; {
		cc.unchain(b.key)
		b.key = staleKey
		for i := range b.ins {
			b.ins[i].fn = opStale
		}
		which := 0
		if b.twice && b.second == phys {
			which = 1
		}
		b = b.sibling[which]
	}
}

// dropCode empties the cache.
func (c *cpu) dropCode() {
	cc := &c.code
	if cc.table == nil {
		return // nothing has run yet
	}
	cc.fill(0)
	clear(cc.table)
	clear(cc.pages)
	cc.recent = nil
	c.cur, c.next, c.linkTo = nil, nil, -1
	c.tlb.protectAll()
}

// opStale replaces the instructions of a block whose page has been written to,
// also while the block is running: what is behind the store is decoded anew.
func opStale(c *cpu, in *inst) bool {
	c.stop = stopAgain
	return false
}

// opFallthrough goes on with the next block.
func opFallthrough(c *cpu, in *inst) bool { return c.follow(0, uint64(in.next)) }

// follow goes on at off from the start of the running block's page, through
// link k of the block.
func (c *cpu) follow(k int8, off uint64) bool {
	if off >= pageSize {
		return c.followFar(k, off)
	}
	c.next = c.cur.link[k&1]
	if c.next == nil {
		c.rip, c.linkTo = (c.regs[rPage]+off)&c.ipMask, k
	}
	return false
}

// followFar is follow into another page: the link holds as long as that page
// is where it was.
func (c *cpu) followFar(k int8, off uint64) bool {
	c.rip = (c.regs[rPage] + off) & c.ipMask
	lin := c.rip + c.regs[rSeg+segCS]
	e := &c.tx[lin>>12&tlbMask]
	b := c.cur.link[k&1]
	if b != nil && e.tag == lin&^pageMask && e.phys == b.key.page() {
		c.regs[rPage] = c.rip &^ pageMask
		c.next = b
		return false
	}
	c.next, c.linkTo = nil, k
	return false
}
