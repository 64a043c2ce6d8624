package net

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	stdnet "net"
	"os"
	"time"
)

const (
	lengthPrefix = 4
	streamBuffer = 2 * (lengthPrefix + MaxFrame)
)

// Stream is a back end over a stream socket that carries frames behind their
// length, 4 bytes big-endian: what QEMU calls "-netdev stream", and passt(1)
// and others speak. There is no header, so there are no offloads. Frames go out
// and come in many to a system call.
type Stream struct {
	conn stdnet.Conn
	out  []byte // frames that Flush sends

	buf  []byte // of Recv and Wait
	r, w int    // the bytes of buf that are frames not yet returned
	hdr  [HeaderLen]byte
	ps   [2][]byte
}

var (
	_ Backend = (*Stream)(nil)
	_ Port    = (*Stream)(nil)
)

// NewStream returns a back end over conn, which it does not close.
func NewStream(conn stdnet.Conn) *Stream {
	return &Stream{conn: conn, out: make([]byte, 0, streamBuffer), buf: make([]byte, streamBuffer)}
}

// Offloads implements Backend: none.
func (s *Stream) Offloads() uint64 { return 0 }

// SetOffloads implements Backend.
func (s *Stream) SetOffloads(uint64) error { return nil }

// SetPairs implements Backend.
func (s *Stream) SetPairs(int) error { return nil }

// Ports implements Backend: there is one, s itself.
func (s *Stream) Ports() []Port { return []Port{s} }

// Send implements Port.
func (s *Stream) Send(frame [][]byte) error {
	n := lengthOf(frame) - HeaderLen
	if len(s.out)+lengthPrefix+n > cap(s.out) {
		if err := s.Flush(); err != nil {
			return err
		}
		if len(s.out)+lengthPrefix+n > cap(s.out) {
			return nil // woken before there was room
		}
	}
	s.out = binary.BigEndian.AppendUint32(s.out, uint32(n))
	skip := HeaderLen
	for _, b := range frame {
		k := min(skip, len(b))
		skip -= k
		s.out = append(s.out, b[k:]...)
	}
	return nil
}

// Flush implements Port. What it could not send before it was woken goes first
// the next time: half a frame would break the stream.
func (s *Stream) Flush() error {
	if len(s.out) == 0 {
		return nil
	}
	n, err := s.conn.Write(s.out)
	s.out = s.out[:copy(s.out, s.out[n:])]
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = s.conn.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		s.out = s.out[:0]
		return fmt.Errorf("write frames: %w", err)
	}
	return nil
}

// Recv implements Port.
func (s *Stream) Recv() ([][]byte, error) {
	n, whole, err := s.next()
	if err != nil || !whole {
		return nil, err
	}
	clear(s.hdr[:])
	s.ps = [2][]byte{s.hdr[:], s.buf[s.r+lengthPrefix : s.r+lengthPrefix+n]}
	s.r += lengthPrefix + n
	return s.ps[:], nil
}

// next is the length of the frame at the front of the buffer, and whether it
// is all there.
func (s *Stream) next() (n int, whole bool, err error) {
	if s.w-s.r < lengthPrefix {
		return 0, false, nil
	}
	length := binary.BigEndian.Uint32(s.buf[s.r:])
	if length < ethernetHeader || length > MaxFrame-HeaderLen {
		return 0, false, fmt.Errorf("read frames: a frame of %d bytes: the peer does not speak this protocol", length)
	}
	n = int(length)
	return n, s.w-s.r >= lengthPrefix+n, nil
}

// Wait implements Port.
func (s *Stream) Wait() error {
	if _, whole, err := s.next(); whole || err != nil {
		return err
	}
	s.w = copy(s.buf, s.buf[s.r:s.w])
	s.r = 0
	n, err := s.conn.Read(s.buf[s.w:])
	s.w += n
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = s.conn.SetReadDeadline(time.Time{})
	case err == io.EOF:
		err = ErrClosed
	}
	if err != nil {
		return fmt.Errorf("read frames: %w", err)
	}
	return nil
}

// Wake implements Port.
func (s *Stream) Wake() { _ = s.conn.SetDeadline(time.Unix(1, 0)) }
