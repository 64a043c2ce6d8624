package serial

// fifo is the receiver's FIFO. An error belongs to the character that it came
// with and shows in LSR when that character is next to be read ("Line Status
// Register").
type fifo struct {
	char [fifoDepth]uint8
	err  [fifoDepth]uint8
	head int
	n    int
	bad  int // characters with an error
}

func (f *fifo) push(c, err uint8) {
	i := (f.head + f.n) % fifoDepth
	f.char[i], f.err[i] = c, err
	f.n++
	if err != 0 {
		f.bad++
	}
}

// replace overwrites the last character: what becomes of a character that
// arrives while the receiver's buffer of one is full.
func (f *fifo) replace(c, err uint8) {
	f.n--
	if f.err[(f.head+f.n)%fifoDepth] != 0 {
		f.bad--
	}
	f.push(c, err)
}

func (f *fifo) pop() (c uint8) {
	c = f.char[f.head]
	if f.err[f.head] != 0 {
		f.bad--
	}
	f.head = (f.head + 1) % fifoDepth
	f.n--
	return c
}

// top takes the error of the character that is next to be read: it is in LSR
// from then on.
func (f *fifo) top() (err uint8) {
	if f.n == 0 {
		return 0
	}
	err = f.err[f.head]
	if err != 0 {
		f.bad--
		f.err[f.head] = 0
	}
	return err
}
