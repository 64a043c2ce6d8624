package softcpu

import (
	"encoding/binary"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// An instruction that accesses a device cannot finish before the VMM has had
// the access: Run returns it as an exit, and the next Run executes the
// instruction again from its start. The accesses that were answered are in a
// log, so that the second execution finds its answers and gets to the next one.

// ioAccess is one access of the running instruction.
type ioAccess struct {
	addr  uint64
	size  uint8
	write bool
	port  bool
	data  uint64
}

type ioState struct {
	log     [16]ioAccess // answered accesses of the running instruction
	n, pos  int
	pending bool // the exit's access waits to be answered
	exit    x86.Exit
	buf     [8]byte
}

func (s *ioState) reset() { s.n, s.pos = 0, 0 }

// access gives the answer of the VMM, or makes an exit to get it.
func (c *cpu) access(a ioAccess) (uint64, bool) {
	s := &c.io
	if s.pos < s.n {
		e := &s.log[s.pos]
		if e.addr == a.addr && e.size == a.size && e.write == a.write && e.port == a.port {
			s.pos++
			return e.data, true
		}
		// Another path than the first time: device registers that are
		// page tables, or the like. What follows is asked anew.
		s.n = s.pos
	}
	if s.n == len(s.log) {
		return ^uint64(0), true
	}
	s.log[s.n] = a
	s.pending = true
	binary.LittleEndian.PutUint64(s.buf[:], a.data)
	s.exit = x86.Exit{Reason: x86.ExitMMIO, Write: a.write, Size: a.size, Addr: a.addr, Count: 1, Data: s.buf[:a.size]}
	if a.port {
		s.exit.Reason, s.exit.Port, s.exit.Addr = x86.ExitIO, uint16(a.addr), 0
	}
	c.stop = stopExit
	return 0, false
}

// answer takes the device's answer to the last exit.
func (s *ioState) answer() {
	e := &s.log[s.n]
	if !e.write {
		clear(s.buf[e.size:])
		e.data = binary.LittleEndian.Uint64(s.buf[:])
	}
	s.n++
	s.pos, s.pending = 0, false
}

// among says whether the running instruction is one of several in a block. It
// then is to be executed again, alone: a chip reads the time, and what it does
// is to be seen before the next instruction.
func (c *cpu) among() bool {
	if c.next == nil || c.next != c.cur || c.cur.n == 1 || c.event.entering {
		return false
	}
	c.stop = stopAlone
	return true
}

// deviceLoad reads from a physical address that is not RAM.
func (c *cpu) deviceLoad(phys uint64, size uint8) (uint64, bool) {
	if c.among() {
		return 0, false
	}
	if v, ok := c.vm.chipLoad(c, phys, size); ok {
		return v, true
	}
	if c.event.entering {
		return 1<<(8*size) - 1, true
	}
	return c.access(ioAccess{addr: phys, size: size})
}

func (c *cpu) deviceStore(phys uint64, size uint8, v uint64) bool {
	if c.among() {
		return false
	}
	if c.vm.chipStore(c, phys, size, v) || c.event.entering {
		return true
	}
	_, ok := c.access(ioAccess{addr: phys, size: size, write: true, data: zeroExtend(v, 64-8*size)})
	return ok
}

// portIn and portOut access I/O ports. The accelerator's own chips answer at
// once.
func (c *cpu) portIn(port uint16, size uint8) (uint64, bool) {
	if v, ok := c.vm.portLoad(port, size); ok {
		return v, true
	}
	return c.access(ioAccess{addr: uint64(port), size: size, port: true})
}

func (c *cpu) portOut(port uint16, size uint8, v uint64) bool {
	if c.vm.portStore(port, size, v) {
		return true
	}
	_, ok := c.access(ioAccess{addr: uint64(port), size: size, write: true, port: true, data: zeroExtend(v, 64-8*size)})
	return ok
}

// portAllowed checks the I/O permission bitmap of the TSS (SDM vol. 1,
// 19.5.2).
func (c *cpu) portAllowed(port uint16, size uint8) bool {
	if !c.protected() || c.cpl <= c.iopl() && !c.vm86() {
		return true
	}
	if c.tss.attr&8 == 0 || c.tss.limit < 103 {
		return c.raiseCode(vectorGP, 0)
	}
	var base, bits uint64
	ok := c.system(func() (ok bool) {
		if base, ok = c.load16(c.tss.base + 102); !ok {
			return false
		}
		at := base + uint64(port/8)
		if at+1 > uint64(c.tss.limit) {
			return c.raiseCode(vectorGP, 0)
		}
		bits, ok = c.load16(c.tss.base + at)
		return ok
	})
	if !ok {
		return false
	}
	if bits>>(port&7)&(1<<size-1) != 0 {
		return c.raiseCode(vectorGP, 0)
	}
	return true
}

// opIn is IN: op 0 with an immediate port, 1 with DX.
func opIn(c *cpu, in *inst) bool {
	port, size := c.portOf(in), min(in.size, 4)
	if !c.portAllowed(port, size) {
		return false
	}
	v, ok := c.portIn(port, size)
	if ok {
		c.setGPR(rAX, size, v)
	}
	return ok
}

func opOut(c *cpu, in *inst) bool {
	port, size := c.portOf(in), min(in.size, 4)
	return c.portAllowed(port, size) && c.portOut(port, size, c.regs[rAX])
}

func (c *cpu) portOf(in *inst) uint16 {
	if in.op == 1 {
		return uint16(c.regs[rDX])
	}
	return uint16(in.imm)
}
