package softcpu

// hooks are called from rare paths.
type hooks struct {
	onEvent func(c *cpu, vector uint8, ev event)
}

func (h *hooks) event(c *cpu, vector uint8, ev event) {
	c.event.trap = false
	if h.onEvent != nil {
		h.onEvent(c, vector, ev)
	}
}
func (h *hooks) breakpoint(c *cpu, in *inst) bool { return false }
func (h *hooks) debugRegs(c *cpu)                 {}
func (h *hooks) unknown(c *cpu, in *inst) {
	if f := c.vm.opts.Unknown; f != nil {
		rip := c.ipAt(in.off)
		var code []byte
		lin := rip + c.regs[rSeg+segCS]
		for i := range uint64(maxInstruction) {
			e := &c.tx[(lin+i)>>12&tlbMask]
			if e.tag != (lin+i)&^pageMask || e.page == nil {
				break
			}
			code = append(code, e.page[(lin+i)&pageMask])
		}
		f(c.id, rip, code)
	}
}
