package gdb

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// Error numbers of replies; GDB only prints them.
const (
	errFault   = "E0e" // EFAULT: no memory there
	errInvalid = "E16" // EINVAL: a packet that makes no sense
)

var ok = []byte("OK")

// command carries out a packet. A nil reply is none: the machine runs, and the
// answer is its stop.
func (s *session) command(p []byte) (reply []byte, err error) {
	if len(p) == 0 {
		return []byte{}, nil
	}
	arg := string(p[1:])
	switch p[0] {
	case '?':
		return s.stopReply(), nil
	case 'g', 'G', 'p', 'P':
		return s.registerPacket(p[0], arg), nil
	case 'm':
		return s.readMemory(arg), nil
	case 'M', 'X':
		return s.writeMemory(p[0], p[1:]), nil
	case 'Z', 'z':
		return s.breakpoint(p[0] == 'Z', arg), nil
	case 'c', 'C':
		return s.resume(p[0], arg)
	case 's', 'S':
		return s.step(s.thread)
	case 'H':
		return s.selectThread(arg), nil
	case 'T':
		if _, found := s.threadID(arg); found {
			return ok, nil
		}
		return []byte(errInvalid), nil
	case 'D':
		return ok, errDetached
	case 'k':
		_ = s.t.Kill()
		s.stop = Stop{Reason: Exited}
		return nil, errEnded
	case 'v':
		return s.verbose(arg)
	case 'q', 'Q':
		return s.query(p[0], arg), nil
	}
	return []byte{}, nil
}

// verbose is the v packets.
func (s *session) verbose(arg string) ([]byte, error) {
	switch {
	case arg == "Cont?":
		return []byte("vCont;c;C;s;S"), nil
	case strings.HasPrefix(arg, "Cont;"):
		return s.vCont(strings.Split(arg[len("Cont;"):], ";"))
	case strings.HasPrefix(arg, "Kill"):
		_ = s.t.Kill()
		s.stop = Stop{Reason: Exited}
		return ok, errEnded
	}
	return []byte{}, nil
}

// vCont: a thread to step, or all to run. The first action that is for a
// thread counts; where one is stepped, the others stand still.
func (s *session) vCont(actions []string) ([]byte, error) {
	run := false
	for _, a := range actions {
		verb, id, one := strings.Cut(a, ":")
		if verb == "" {
			return []byte(errInvalid), nil
		}
		switch verb[0] {
		case 's', 'S':
			cpu := s.thread
			if one {
				if n, found := s.threadID(id); found && n >= 0 {
					cpu = n
				} else if !found {
					return []byte(errInvalid), nil
				}
			}
			return s.step(cpu)
		case 'c', 'C':
			run = true
		default:
			return []byte(errInvalid), nil
		}
	}
	if !run {
		return []byte(errInvalid), nil
	}
	return s.resume('c', "")
}

func (s *session) resume(verb byte, arg string) ([]byte, error) {
	if s.stop.ended() {
		return s.stopReply(), errEnded
	}
	if verb == 'C' { // a signal: a machine has none to take
		_, arg, _ = strings.Cut(arg, ";")
	}
	if arg != "" {
		if fault := s.jump(arg); fault != nil {
			return fault, nil
		}
	}
	if err := s.t.Resume(); err != nil {
		return errorText(err), nil
	}
	s.resumed = true
	return nil, nil
}

// jump sets RIP, as an old-fashioned c packet may ask.
func (s *session) jump(addr string) []byte {
	a, err := strconv.ParseUint(addr, 16, 64)
	if err != nil {
		return []byte(errInvalid)
	}
	r, err := s.t.Registers(s.thread)
	if err != nil {
		return errorText(err)
	}
	r.RIP = a
	if err := s.t.SetRegisters(s.thread, r); err != nil {
		return errorText(err)
	}
	return nil
}

func (s *session) step(cpu int) ([]byte, error) {
	if s.stop.ended() {
		return s.stopReply(), errEnded
	}
	st, err := s.t.Step(s.ctx, cpu)
	if err != nil {
		return errorText(err), nil
	}
	s.stop = st
	if st.ended() {
		return s.stopReply(), errEnded
	}
	s.thread = st.CPU
	return s.stopReply(), nil
}

// threadID is the CPU that a thread's name means; -1 for all or any.
func (s *session) threadID(id string) (cpu int, found bool) {
	if id == "-1" || id == "0" {
		return -1, true
	}
	n, err := strconv.ParseUint(id, 16, 32)
	if err != nil || n > uint64(s.t.CPUs()) {
		return 0, false
	}
	return int(n) - 1, true
}

func (s *session) selectThread(arg string) []byte {
	if arg == "" {
		return []byte(errInvalid)
	}
	n, found := s.threadID(arg[1:])
	if !found {
		return []byte(errInvalid)
	}
	if arg[0] == 'g' && n >= 0 {
		s.thread = n
	}
	return ok
}

func (s *session) registerPacket(verb byte, arg string) []byte {
	r, err := s.t.Registers(s.thread)
	if err != nil {
		return errorText(err)
	}
	switch verb {
	case 'g':
		var out []byte
		for _, g := range registers() {
			out = g.appendHex(out, r)
		}
		return out
	case 'p':
		n, err := strconv.ParseUint(arg, 16, 16)
		if err != nil || n >= uint64(len(registers())) {
			return []byte(errInvalid)
		}
		return registers()[n].appendHex(nil, r)
	case 'G':
		return s.setAll(r, arg)
	}
	name, value, _ := strings.Cut(arg, "=")
	n, err := strconv.ParseUint(name, 16, 16)
	if err != nil || n >= uint64(len(registers())) {
		return []byte(errInvalid)
	}
	v, good := parseHex([]byte(value))
	g := &registers()[n]
	if !good || len(v) < g.bits/8 {
		return []byte(errInvalid)
	}
	if g.set == nil || g.fx && !r.HasFX {
		return []byte("E." + g.name + " cannot be set")
	}
	g.set(r, v)
	return s.setRegisters(r)
}

// setAll is the G packet; what cannot be set is passed over.
func (s *session) setAll(r *Registers, arg string) []byte {
	for _, g := range registers() {
		n := g.bits / 8 * 2
		if len(arg) < n {
			return []byte(errInvalid)
		}
		v, good := parseHex([]byte(arg[:n]))
		if good && g.set != nil && (!g.fx || r.HasFX) {
			g.set(r, v)
		}
		arg = arg[n:]
	}
	return s.setRegisters(r)
}

func (s *session) setRegisters(r *Registers) []byte {
	if err := s.t.SetRegisters(s.thread, r); err != nil {
		return errorText(err)
	}
	return ok
}

// addrLen parses "addr,length" in hex.
func addrLen(arg string) (addr, n uint64, good bool) {
	a, l, _ := strings.Cut(arg, ",")
	addr, err1 := strconv.ParseUint(a, 16, 64)
	n, err2 := strconv.ParseUint(l, 16, 64)
	return addr, n, err1 == nil && err2 == nil
}

func (s *session) virtual() (virtual, error) {
	r, err := s.t.Registers(s.thread)
	if err != nil {
		return virtual{}, err
	}
	return virtualOf(s.t.Memory(), r), nil
}

func (s *session) readMemory(arg string) []byte {
	addr, n, good := addrLen(arg)
	if !good {
		return []byte(errInvalid)
	}
	v, err := s.virtual()
	if err != nil {
		return errorText(err)
	}
	p := make([]byte, min(n, maxPacket/2-8))
	got := v.read(addr, p)
	if got == 0 && n > 0 {
		return []byte(errFault)
	}
	return appendHex(nil, p[:got])
}

func (s *session) writeMemory(verb byte, p []byte) []byte {
	head, data, found := bytes.Cut(p, []byte{':'})
	addr, n, good := addrLen(string(head))
	if !found || !good {
		return []byte(errInvalid)
	}
	if verb == 'M' {
		if data, good = parseHex(data); !good {
			return []byte(errInvalid)
		}
	}
	if uint64(len(data)) != n {
		return []byte(errInvalid)
	}
	v, err := s.virtual()
	if err != nil {
		return errorText(err)
	}
	if !v.write(addr, data) {
		return []byte(errFault)
	}
	return ok
}

// breakpoint is Z and z: "type,addr,kind".
func (s *session) breakpoint(insert bool, arg string) []byte {
	kind, rest, _ := strings.Cut(arg, ",")
	rest, _, _ = strings.Cut(rest, ";") // conditions are GDB's to check
	addr, n, good := addrLen(rest)
	k, err := strconv.ParseUint(kind, 10, 8)
	if err != nil || !good {
		return []byte(errInvalid)
	}
	if Kind(k) > AccessWatch {
		return []byte{}
	}
	b := Breakpoint{Kind: Kind(k), Addr: addr, Len: n}
	if b.Kind == Software || b.Kind == Hardware {
		b.Len = 1
	}
	switch {
	case s.inserted[b] == insert:
		return ok // GDB asks again to be sure
	case insert:
		err = s.t.Insert(b)
	default:
		err = s.t.Remove(b)
	}
	if err != nil {
		return errorText(err)
	}
	if insert {
		s.inserted[b] = true
	} else {
		delete(s.inserted, b)
	}
	return ok
}

// modeOf is a CPU's mode for a list of threads.
func modeOf(r *Registers) string {
	switch {
	case r.CR0&1 == 0:
		return "real mode"
	case r.LongMode():
		return fmt.Sprintf("64-bit, CPL %d", r.CPL())
	case r.CS.DB != 0:
		return fmt.Sprintf("32-bit, CPL %d", r.CPL())
	}
	return fmt.Sprintf("16-bit, CPL %d", r.CPL())
}
