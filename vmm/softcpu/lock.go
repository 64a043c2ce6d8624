package softcpu

// lockedForm is the handler of a LOCK-prefixed instruction when CPUs run at
// the same time.
func lockedForm(in *inst, op *opcode) handler { return op.fn }
