package softcpu

// Near branches (SDM vol. 2: Jcc, JMP, CALL, RET, LOOP, JCXZ). A direct
// branch's target stands in imm as an offset from the start of the page, so
// that code may lie at any address.

func opJcc(c *cpu, in *inst) bool {
	if c.cond(in.op) {
		return c.follow(1, in.imm)
	}
	return c.follow(0, uint64(in.next))
}

func opJmp(c *cpu, in *inst) bool { return c.follow(1, in.imm) }

// With an operand size of 16 bits IP is truncated: the same, without links.

func opJcc16(c *cpu, in *inst) bool {
	if c.cond(in.op) {
		return c.near(c.regs[rPage]+in.imm, 2)
	}
	return c.near(c.regs[rPage]+uint64(in.next), 2)
}

func opJmp16(c *cpu, in *inst) bool { return c.near(c.regs[rPage]+in.imm, 2) }

// near goes to a computed ip, of size bytes.
func (c *cpu) near(ip uint64, size uint8) bool {
	if size == 2 {
		ip &= 0xffff
	}
	return c.branch(ip & c.ipMask)
}

// nearChecked is near with the check that a non-canonical target faults in
// the branch, not behind it.
func (c *cpu) nearChecked(ip uint64, size uint8) bool {
	if c.code64() && uint64(int64(ip<<16)>>16) != ip {
		return c.raiseCode(vectorGP, 0)
	}
	return c.near(ip, size)
}

func opCall(c *cpu, in *inst) bool {
	if !c.push(in.size, c.nextIP(in)) {
		return false
	}
	return c.follow(1, in.imm)
}

func opCall64(c *cpu, in *inst) bool {
	sp := c.regs[rSP] - 8
	if !c.store64(sp, c.regs[rPage]+uint64(in.next)) {
		c.stackFault()
		return false
	}
	c.regs[rSP] = sp
	if in.imm >= pageSize {
		return c.followFar(1, in.imm)
	}
	return c.follow(1, in.imm)
}

func opCall16(c *cpu, in *inst) bool {
	return c.push(2, c.nextIP(in)) && c.near(c.regs[rPage]+in.imm, 2)
}

func specCall(in *inst) handler {
	switch in.size {
	case 8:
		return opCall64
	case 2:
		return opCall16
	}
	return nil
}

func opCallM(c *cpu, in *inst) bool {
	ip, ok := c.readRM(in)
	if !ok {
		return false
	}
	if c.code64() && uint64(int64(ip<<16)>>16) != ip {
		return c.raiseCode(vectorGP, 0)
	}
	return c.push(in.size, c.nextIP(in)) && c.near(ip, in.size)
}

func opJmpM(c *cpu, in *inst) bool {
	ip, ok := c.readRM(in)
	return ok && c.nearChecked(ip, in.size)
}

func opRet(c *cpu, in *inst) bool {
	s := c.stackNow()
	ip, ok := s.pop(in.size)
	if !ok {
		return false
	}
	if c.code64() && uint64(int64(ip<<16)>>16) != ip {
		return c.raiseCode(vectorGP, 0)
	}
	s.sp += in.imm
	s.commit()
	return c.near(ip, in.size)
}

func opRet64(c *cpu, in *inst) bool {
	ip, ok := c.load64(c.regs[rSP])
	if !ok {
		c.stackFault()
		return false
	}
	if uint64(int64(ip<<16)>>16) != ip {
		return c.raiseCode(vectorGP, 0)
	}
	c.regs[rSP] += 8
	c.rip, c.next, c.linkTo = ip, nil, -1
	return false
}

func specRet(in *inst) handler {
	if in.size == 8 && in.imm == 0 {
		return opRet64
	}
	return nil
}

// opLoop is LOOPNE (op 0), LOOPE (1), LOOP (2), JrCXZ (3).
func opLoop(c *cpu, in *inst) bool {
	n := c.regs[rCX] & in.amask
	var taken bool
	if in.op == 3 {
		taken = n == 0
	} else {
		n = (n - 1) & in.amask
		c.setGPR(rCX, in.asize, n)
		taken = n != 0 && (in.op == 2 || c.zf() == (in.op == 1))
	}
	off := uint64(in.next)
	k := int8(0)
	if taken {
		off, k = in.imm, 1
	}
	if in.size == 2 {
		return c.near(c.regs[rPage]+off, 2)
	}
	return c.follow(k, off)
}
