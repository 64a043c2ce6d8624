package softcpu

func specAluEG(in *inst) handler { return nil }
func specAluGE(in *inst) handler { return nil }
func specAluEI(in *inst) handler { return nil }
func specTest(in *inst) handler  { return nil }
func specTestI(in *inst) handler { return nil }
func specMovEG(in *inst) handler { return nil }
func specMovGE(in *inst) handler { return nil }
func specMovEI(in *inst) handler { return nil }
func specMovx(in *inst) handler  { return nil }
func specShift(in *inst) handler { return nil }
func specCmov(in *inst) handler  { return nil }
func specJcc(in *inst) handler {
	if in.size == 2 {
		return opJcc16
	}
	return nil
}
func specJmp(in *inst) handler {
	if in.size == 2 {
		return opJmp16
	}
	return nil
}
func (c *cpu) fuse(b *block, in *inst) {}
