package serial

import (
	"encoding/json"
	"fmt"
)

const stateVersion = 1

// state is the UART in a snapshot. FIFO has the characters that the guest has
// not read, in order; Errors has LSR's bits for each.
type state struct {
	Version  int    `json:"version"`
	IER      uint8  `json:"ier"`
	FCR      uint8  `json:"fcr"`
	LCR      uint8  `json:"lcr"`
	MCR      uint8  `json:"mcr"`
	LSR      uint8  `json:"lsr"`
	MSR      uint8  `json:"msr"`
	SCR      uint8  `json:"scr"`
	DLL      uint8  `json:"dll"`
	DLM      uint8  `json:"dlm"`
	THREmpty bool   `json:"thr_empty"`
	RTSSeen  bool   `json:"rts_seen"`
	Listens  bool   `json:"listens"`
	FIFO     []byte `json:"fifo"`
	Errors   []byte `json:"errors"`
}

// State returns the registers and the receiver's FIFO as JSON.
func (u *UART) State() ([]byte, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := state{
		Version: stateVersion,
		IER:     u.ier, FCR: u.fcr, LCR: u.lcr, MCR: u.mcr, LSR: u.lsr, MSR: u.msr, SCR: u.scr, DLL: u.dll, DLM: u.dlm,
		THREmpty: u.thrEmpty, RTSSeen: u.rtsSeen, Listens: u.listens,
	}
	for i := range u.rx.n {
		at := (u.rx.head + i) % fifoDepth
		s.FIFO = append(s.FIFO, u.rx.char[at])
		s.Errors = append(s.Errors, u.rx.err[at])
	}
	return json.Marshal(s)
}

// SetState takes what State returned. What is pending then is raised again.
func (u *UART) SetState(b []byte) error {
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("serial: state: %w", err)
	}
	if err := s.check(); err != nil {
		return fmt.Errorf("serial: state: %w", err)
	}
	u.mu.Lock()
	u.ier, u.fcr, u.lcr, u.mcr, u.lsr, u.msr, u.scr, u.dll, u.dlm = s.IER, s.FCR, s.LCR, s.MCR, s.LSR, s.MSR, s.SCR, s.DLL, s.DLM
	u.thrEmpty, u.rtsSeen, u.listens, u.polls = s.THREmpty, s.RTSSeen, s.Listens, 0
	u.rx = fifo{}
	for i, c := range s.FIFO {
		u.rx.push(c, s.Errors[i])
	}
	raise := u.pending() != 0
	u.wakeFeeder()
	u.mu.Unlock()
	if raise {
		_ = u.irq()
	}
	return nil
}

func (s *state) check() error {
	depth := 1
	if s.FCR&fcrEnable != 0 {
		depth = fifoDepth
	}
	switch {
	case s.Version != stateVersion:
		return fmt.Errorf("version %d: want %d", s.Version, stateVersion)
	case len(s.FIFO) > depth || len(s.Errors) != len(s.FIFO):
		return fmt.Errorf("%d characters with %d errors in a FIFO of %d", len(s.FIFO), len(s.Errors), depth)
	case s.IER&^ierMask|s.FCR&^fcrKept|s.MCR&^mcrMask|s.LSR&^lsrErrors != 0:
		return fmt.Errorf("a register has bits that a 16550A does not")
	}
	for _, e := range s.Errors {
		if e&^lsrErrors != 0 {
			return fmt.Errorf("error bits %#x", e)
		}
	}
	return nil
}
