package gdb

import (
	"bufio"
	"errors"
	"io"
)

// maxPacket is the longest payload of a packet in either direction; GDB is told.
const maxPacket = 0x4000

// A packet is $payload#xx with the payload's sum modulo 256 in two hex digits;
// in the payload } escapes the next byte, which is then xored with 0x20. Outside
// packets + and - acknowledge, and 0x03 interrupts.

type eventKind uint8

const (
	evPacket    eventKind = iota
	evBad                 // a packet whose sum is wrong, or that is too long
	evNak                 // GDB did not understand the last reply
	evInterrupt           // Ctrl-C
)

type event struct {
	kind    eventKind
	payload []byte
}

// scanner reads packets from a connection.
type scanner struct {
	r   *bufio.Reader
	buf []byte
}

func newScanner(r io.Reader) *scanner { return &scanner{r: bufio.NewReader(r)} }

// next returns the next thing that GDB said. Noise between packets is skipped.
func (s *scanner) next() (event, error) {
	for {
		b, err := s.r.ReadByte()
		if err != nil {
			return event{}, err
		}
		switch b {
		case 0x03:
			return event{kind: evInterrupt}, nil
		case '-':
			return event{kind: evNak}, nil
		case '$':
			return s.packet()
		}
	}
}

var errShortPacket = errors.New("gdb: the connection ended within a packet")

func (s *scanner) packet() (event, error) {
	s.buf = s.buf[:0]
	var sum byte
	tooLong := false
	for {
		b, err := s.r.ReadByte()
		if err != nil {
			return event{}, errShortPacket
		}
		switch b {
		case '#':
			want, err := s.checksum()
			if err != nil {
				return event{}, err
			}
			if tooLong || want != int(sum) {
				return event{kind: evBad}, nil
			}
			return event{kind: evPacket, payload: unescape(s.buf)}, nil
		case '$': // the last one was cut off: this is the next
			s.buf, sum, tooLong = s.buf[:0], 0, false
			continue
		}
		sum += b
		if len(s.buf) >= maxPacket {
			tooLong = true
			continue
		}
		s.buf = append(s.buf, b)
	}
}

// checksum reads two hex digits; -1 where they are none.
func (s *scanner) checksum() (int, error) {
	var d [2]byte
	if _, err := io.ReadFull(s.r, d[:]); err != nil {
		return 0, errShortPacket
	}
	hi, ok1 := hexDigit(d[0])
	lo, ok2 := hexDigit(d[1])
	if !ok1 || !ok2 {
		return -1, nil
	}
	return int(hi<<4 | lo), nil
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

func unescape(p []byte) []byte {
	out := make([]byte, 0, len(p))
	for i := 0; i < len(p); i++ {
		if p[i] == '}' && i+1 < len(p) {
			i++
			out = append(out, p[i]^0x20)
			continue
		}
		out = append(out, p[i])
	}
	return out
}

// frame makes a packet of a payload.
func frame(payload []byte) []byte {
	const digits = "0123456789abcdef"
	out := make([]byte, 0, len(payload)+8)
	out = append(out, '$')
	for _, b := range payload {
		switch b {
		case '$', '#', '}', '*':
			out = append(out, '}', b^0x20)
		default:
			out = append(out, b)
		}
	}
	var sum byte
	for _, b := range out[1:] {
		sum += b
	}
	return append(out, '#', digits[sum>>4], digits[sum&15])
}
