package compare

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// What the program writes: see probe/probe.c.
const (
	markReached = 0x02
	markBegin   = 0x05
	markEnd     = 0x06
	markOver    = 0x04
)

// outcome is what a run of the program came to.
type outcome struct {
	reached time.Time // arrival of the first mark
	begins  []time.Time
	ends    []time.Time
	over    bool

	status int
	carry  time.Duration // the writing of the first mark, by the program's clock
	fs     uint64        // statfs f_type of ./tmp
	sum    uint64
	own    map[string]time.Duration
}

// maxOutput bounds what is kept of an instance's output: kernels and firmware
// may write before the program does.
const maxOutput = 1 << 20

// marks takes an instance's output apart as it arrives.
type marks struct {
	out outcome
	buf bytes.Buffer
}

// add takes what arrived at the time now.
func (m *marks) add(p []byte, now time.Time) {
	for _, c := range p {
		switch {
		case c == markReached && m.out.reached.IsZero():
			m.out.reached = now
		case m.out.reached.IsZero():
		case c == markBegin:
			m.out.begins = append(m.out.begins, now)
		case c == markEnd:
			m.out.ends = append(m.out.ends, now)
		case c == markOver:
			m.out.over = true
		}
	}
	m.buf.Write(p[:min(len(p), maxOutput-m.buf.Len())])
}

// errNoResult: the program did not get to its last line.
var errNoResult = errors.New("the program did not finish")

// finish reads the program's last line.
func (m *marks) finish() (*outcome, error) {
	text := m.buf.String()
	i := strings.LastIndex(text, "probe1 ")
	if i < 0 || !m.out.over {
		return nil, errNoResult
	}
	line, _, _ := strings.Cut(text[i:], "\n")
	fields := strings.Fields(line)
	if len(fields) < 6 {
		return nil, fmt.Errorf("the program's result is cut short: %q", line)
	}
	var n [5]uint64
	for j := range n {
		var err error
		if n[j], err = strconv.ParseUint(fields[j+1], 10, 64); err != nil {
			return nil, fmt.Errorf("the program's result is garbled: %q", line)
		}
	}
	o := &m.out
	o.status, o.carry, o.fs, o.sum = int(n[0]), time.Duration(n[2]), n[3], n[4]
	o.own = make(map[string]time.Duration)
	for _, f := range fields[6:] {
		name, value, _ := strings.Cut(f, "=")
		ns, err := strconv.ParseInt(value, 10, 64)
		if err != nil || ns < 0 {
			return nil, fmt.Errorf("the program's result is garbled: %q", line)
		}
		o.own[name] = time.Duration(ns)
	}
	return o, nil
}
