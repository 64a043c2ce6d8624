package ninep

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
)

// source is the session as the server's input.
type source struct {
	*session
	in   chan []byte
	rest []byte // of the request that the server is reading
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		msg, ok := <-s.in
		if !ok {
			s.settle()
			return 0, io.EOF
		}
		s.rest = msg
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Close implements io.Closer.
func (s *source) Close() error { return nil }

// sink is the session as the server's output.
type sink struct{ *session }

// Close implements io.Closer.
func (s sink) Close() error { return nil }

// Write implements io.Writer. The server writes one answer after the other, in
// any pieces; an error ends the answer.
func (s sink) Write(p []byte) (n int, err error) {
	defer func() {
		if err != nil {
			s.fail(err)
			s.leave()
		}
	}()
	if err := s.failure(); err != nil {
		return 0, err
	}
	for len(p) > 0 {
		k := 0
		if s.have < headerLen {
			k = copy(s.header[s.have:], p)
			if s.have += k; s.have == headerLen {
				err = s.begin()
			}
		} else {
			k = min(len(p), s.left)
			err = s.put(p[:k])
		}
		n, p = n+k, p[k:]
		if err == nil && s.have == headerLen && s.left == 0 {
			err = s.finish()
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// leave counts an answer that did not reach the guest.
func (s *session) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inside--
	s.idle.Broadcast()
}

// put writes a part of an answer to the guest, unless its chain was given back
// because the session has failed.
func (s *session) put(p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left -= len(p)
	if s.err != nil {
		return s.err
	}
	if s.version && len(p) >= 4 {
		// Rversion has the msize of prepare: the guest gets its own.
		le := binary.LittleEndian
		p = bytes.Clone(p)
		le.PutUint32(p, min(le.Uint32(p), s.msize.Load()))
		s.version = false
	}
	if s.read && len(p) >= 4 {
		// The data is there already; the server counts none.
		p = binary.LittleEndian.AppendUint32(nil, s.size-dataLen)
		s.read = false
	}
	s.answer.Put(p)
	return nil
}

// begin finds the chain for an answer whose header is there.
func (s *session) begin() error {
	le := binary.LittleEndian
	s.size, s.head = le.Uint32(s.header[:]), le.Uint16(s.header[tagAt:])
	s.left = int(s.size) - headerLen
	s.version = s.header[4] == typeVersion+1
	s.mu.Lock()
	defer s.mu.Unlock()
	if int(s.head) >= len(s.calls) || s.calls[s.head].chain == nil {
		// The server does not tell which message it did not understand.
		return errors.New("a message that is not of the protocol")
	}
	c := &s.calls[s.head]
	if s.read = s.header[4] == typeRead+1 && c.data.way == toGuest; s.read {
		s.size += c.data.moved
		le.PutUint32(s.header[:], s.size)
	}
	s.answer = virtio.NewWriter(c.chain.Writable())
	if s.size > c.chain.WritableLen() {
		s.answer = virtio.Cursor{} // to nowhere; finish tells the guest
		return nil
	}
	le.PutUint16(s.header[tagAt:], c.tag)
	s.answer.Put(s.header[:])
	return nil
}

// finish gives the chain of a whole answer back.
func (s *session) finish() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.have = 0
	chain, tag := s.take(s.head)
	if chain == nil {
		return s.err // given back meanwhile: the session has failed
	}
	written := s.size
	if written > chain.WritableLen() {
		var b [errorLen]byte
		putError(b[:], tag, eMsgSize)
		w := virtio.NewWriter(chain.Writable())
		w.Put(b[:])
		written = errorLen
	}
	if err := errors.Join(s.q.Push(chain, written), s.q.Notify()); err != nil {
		return err
	}
	s.inside--
	s.idle.Broadcast()
	return nil
}
