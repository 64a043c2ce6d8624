package softcpu

type fpu struct{ cw, sw uint16 }
type sse struct{ mxcsr uint32 }

func (f *fpu) reset()                { f.cw = 0x37f }
func (s *sse) reset()                { s.mxcsr = 0x1f80 }
func opEscape(c *cpu, in *inst) bool { return c.raise(vectorUD) }
func opFwait(c *cpu, in *inst) bool  { return true }
func opEmms(c *cpu, in *inst) bool   { return true }
func opXgetbv(c *cpu, in *inst) bool { return c.raise(vectorUD) }
func opXsetbv(c *cpu, in *inst) bool { return c.raise(vectorUD) }
func opInt1(c *cpu, in *inst) bool   { return c.raise(vectorUD) }

var map38, map3A, mapSSE [4][256]opcode

const xcr0Mask = 3
const xsaveSize = 576
