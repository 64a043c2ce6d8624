package main

import (
	"io"
	"sync"
)

// input is standard input, read by one guest after another. A read that blocks
// cannot be taken back, so one goroutine reads, and what it has read when a
// guest ends is the next one's.
type input struct {
	start  sync.Once
	src    io.Reader
	chunks chan []byte // closed when src has ended with err
	err    error

	mu   sync.Mutex
	rest []byte
}

func newInput(src io.Reader) *input { return &input{src: src, chunks: make(chan []byte)} }

func (in *input) pump() {
	defer close(in.chunks)
	buf := make([]byte, 32<<10)
	for {
		n, err := in.src.Read(buf)
		if n > 0 {
			in.chunks <- append([]byte{}, buf[:n]...)
		}
		if err != nil {
			in.err = err
			return
		}
	}
}

// attach returns a reader for one guest. Nothing is read before its first
// Read. Its Close makes a Read that waits return io.EOF.
func (in *input) attach() *inputReader { return &inputReader{in: in, closed: make(chan struct{})} }

type inputReader struct {
	in     *input
	once   sync.Once
	closed chan struct{}
}

func (r *inputReader) Read(p []byte) (int, error) {
	in := r.in
	in.start.Do(func() { go in.pump() })
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.rest) == 0 {
		select {
		case <-r.closed:
			return 0, io.EOF
		case c, ok := <-in.chunks:
			if !ok {
				return 0, in.err
			}
			in.rest = c
		}
	}
	n := copy(p, in.rest)
	in.rest = in.rest[n:]
	return n, nil
}

func (r *inputReader) Close() error {
	r.once.Do(func() { close(r.closed) })
	return nil
}
