package softcpu

// loop executes guest code until there is an exit, which is then in
// cpu.io.exit.
func (c *cpu) loop() {
	for {
		b := c.next
		if b == nil || c.attn.Load() != 0 || c.icount+uint64(b.n) > c.until {
			if b = c.boundary(); b == nil {
				return
			}
		}
		c.cur = b
		ins := b.ins
		i := 0
		for i = range ins {
			in := &ins[i]
			if !in.fn(c, in) {
				break
			}
		}
		c.icount += uint64(b.n)
		if c.stop != stopNone && !c.halt(b, i) {
			return
		}
	}
}

// halt handles the reason for which instruction i of b stopped the loop. It
// says whether to go on.
func (c *cpu) halt(b *block, i int) bool {
	why := c.stop
	c.stop = stopNone
	in := &b.ins[i]
	rest := b.ins[i:]
	if why == stopDone {
		rest = rest[1:]
	}
	left := uint64(0)
	for j := range rest {
		if rest[j].flags&flagImplied == 0 {
			left++
		}
	}
	c.icount -= min(left, uint64(b.n))
	if why == stopDone {
		return true
	}
	c.next, c.linkTo = nil, -1
	c.rip = c.ipAt(in.off)
	c.alone = why == stopAlone
	switch why {
	case stopFault:
		c.fixStackFault(in)
		return c.deliverFault()
	case stopExit, stopOut:
		return false
	}
	return true
}

// boundary is what happens between two blocks when something asks for
// attention, or the next block is not known. It returns the block to go on
// with, or nil to leave the loop.
func (c *cpu) boundary() *block {
	for {
		if c.next != nil && c.stop == stopNone {
			if c.attn.Load() == 0 && c.icount+uint64(c.next.n) <= c.until {
				return c.next
			}
			c.rip = c.ipAt(c.next.off)
		}
		c.next = nil
		if c.attn.Load() != 0 || c.icount >= c.until {
			c.linkTo = -1
			if !c.attend() {
				return nil
			}
		}
		if c.findBlock() && c.fits() {
			return c.next
		}
		c.stop = stopNone
		c.linkTo = -1
		if !c.deliverFault() {
			return nil
		}
	}
}

// fits sees to it that the next block does not go beyond until, nor beyond an
// instruction that has to be executed alone: what happens, happens at the same
// instruction however the code came to be cut into blocks. It returns false
// with the fault of fetching raised.
func (c *cpu) fits() bool {
	alone := c.alone
	c.alone = false
	if n := uint64(c.next.n); n == 1 || c.icount+n <= c.until && !alone {
		return true
	}
	c.attn.Or(attnAlone)
	c.mode |= modeStep
	c.next, c.linkTo = nil, -1
	return c.findBlock()
}

// attend looks at everything that may happen between two instructions, in the
// order of SDM vol. 3, table 6-2. It returns false to leave Run with the exit
// in cpu.io.exit.
func (c *cpu) attend() bool {
	a := c.attn.Load()
	if a&attnFlush != 0 {
		c.attn.And(^uint32(attnFlush))
		c.flushDirty()
	}
	if c.icount >= c.until && !c.untilNow() {
		c.kicked()
		return false
	}
	c.attn.And(^uint32(attnAlone))
	c.setMode()
	if c.event.inhibit != 0 && !c.inhibited() {
		return true
	}
	if !c.traps() || a&attnEvent != 0 && !c.injected() {
		return false
	}
	for {
		if !c.signals() {
			return false
		}
		if !c.halted && !c.event.waitSIPI {
			c.attn.And(^uint32(attnHalt))
			break
		}
		if !c.sleep() {
			c.kicked()
			return false
		}
	}
	return c.steps()
}

// inhibited counts down the interrupt shadow of STI and MOV SS. It says
// whether interrupts are to be looked at now; if not, exactly one instruction
// is executed next.
func (c *cpu) inhibited() bool {
	c.event.inhibit--
	if c.event.inhibit == 0 {
		c.attn.And(^uint32(attnShadow))
		return true
	}
	c.mode |= modeStep
	return false
}

// signals delivers what comes from outside: kicks, INIT, SIPI, NMI and
// interrupts.
func (c *cpu) signals() bool {
	a := c.attn.Load()
	if a&attnInit != 0 {
		c.attn.And(^uint32(attnInit))
		c.initReset()
	}
	if a&attnSIPI != 0 {
		c.attn.And(^uint32(attnSIPI))
		c.startup()
	}
	if a&attnKick != 0 {
		c.kicked()
		return false
	}
	if c.event.waitSIPI {
		return true
	}
	if a&attnNMI != 0 && !c.event.nmiBlocked {
		c.attn.And(^uint32(attnNMI))
		c.halted = false
		c.event.nmiBlocked = true
		return c.deliver(vectorNMI, event{kind: eventHardware})
	}
	if a&(attnIRQ|attnTimer) != 0 && (c.halted || !c.debug.NoInterrupts || !c.debug.Step) {
		return c.interrupts()
	}
	return true
}
