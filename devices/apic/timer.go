package apic

// The timer of the local APIC (SDM vol. 3, 11.5.4).

// minPeriod, in ticks of the clock, is how often the periodic timer interrupts
// at most: a guest that asks for more would keep the host busy with nothing
// else.
const minPeriod = 50_000

// divisor is what the clock is divided by.
func (l *LAPIC) divisor() uint64 {
	d := l.reg[regDivide]
	n := d&3 | d>>1&4
	return 1 << ((n + 1) & 7)
}

func (l *LAPIC) timerMode() uint32 { return l.reg[regTimer] >> 17 & 3 }

// start begins a count from the initial count.
func (l *LAPIC) start() {
	if l.timerMode() == timerDeadline {
		return
	}
	l.begun = l.cpu.Now()
	if l.reg[regInitial] == 0 {
		l.cpu.Arm(0)
		return
	}
	l.cpu.Arm(l.begun + l.period())
}

func (l *LAPIC) period() uint64 { return uint64(l.reg[regInitial]) * l.divisor() }

// current is the current count.
func (l *LAPIC) current() uint32 {
	initial := uint64(l.reg[regInitial])
	if initial == 0 || l.timerMode() == timerDeadline {
		return 0
	}
	gone := (l.cpu.Now() - l.begun) / l.divisor()
	if l.timerMode() == timerPeriodic {
		gone %= initial
	}
	return uint32(initial - min(gone, initial))
}

// SetDeadline is a write to IA32_TSC_DEADLINE.
func (l *LAPIC) SetDeadline(tsc uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timerMode() != timerDeadline {
		return
	}
	l.deadline = tsc
	l.arm()
}

// Deadline is IA32_TSC_DEADLINE.
func (l *LAPIC) Deadline() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.deadline
}

// arm asks for the tick at the deadline. One that has passed is at once.
func (l *LAPIC) arm() {
	if l.deadline == 0 {
		l.cpu.Arm(0)
		return
	}
	t := l.deadline - l.cpu.TSCOffset()
	if int64(t) <= 0 {
		t = 1
	}
	l.cpu.Arm(t)
}

// Counting is since when the timer counts, in ticks of the clock, as far as that
// does not follow from its registers; SetCounting restores it.
func (l *LAPIC) Counting() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.begun
}

// SetCounting sets what Counting says. It arms nothing.
func (l *LAPIC) SetCounting(begun uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begun = begun
}

// Tick looks whether the timer is due, and arms it anew if not or if it is
// periodic. It may be called at any time.
func (l *LAPIC) Tick() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.cpu.Now()
	switch l.timerMode() {
	case timerDeadline:
		if l.deadline == 0 {
			return
		}
		if int64(now+l.cpu.TSCOffset()-l.deadline) < 0 {
			l.arm()
			return
		}
		l.deadline = 0
	case timerPeriodic:
		p := l.period()
		if p == 0 {
			return
		}
		if now-l.begun < p {
			l.cpu.Arm(l.begun + p)
			return
		}
		l.begun += (now - l.begun) / p * p
		l.cpu.Arm(max(l.begun+p, now+minPeriod))
	default:
		p := l.period()
		if p == 0 || l.begun == 0 {
			return
		}
		if now-l.begun < p {
			l.cpu.Arm(l.begun + p)
			return
		}
		l.begun = 0
	}
	if lvt := l.reg[regTimer]; lvt&lvtMasked == 0 {
		l.accept(uint8(lvt), false)
	}
}
