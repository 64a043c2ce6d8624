package net

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	stdnet "net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// packetPair is two ends of a socket of which every read and write is a frame.
func packetPair(t testing.TB) (a, b *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<20)
	}
	a, b = os.NewFile(uintptr(fds[0]), "near"), os.NewFile(uintptr(fds[1]), "far")
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// streamPair is two ends of a stream socket.
func streamPair(t testing.TB) (a, b *stdnet.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var cs [2]*stdnet.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		c, err := stdnet.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		cs[i] = c.(*stdnet.UnixConn)
		_ = cs[i].SetWriteBuffer(1 << 20)
	}
	return cs[0], cs[1]
}

// portPair is a port and the frames on its other side, without headers of
// virtio.
type portPair struct {
	port  Port
	write func(frame []byte)
	read  func() []byte
	close func()
}

func filePair(t testing.TB) portPair {
	near, far := packetPair(t)
	p, err := NewFilePort(near)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, MaxFrame)
	return portPair{p,
		func(frame []byte) {
			if _, err := far.Write(withHeader(Header{}, frame)); err != nil {
				t.Error(err)
			}
		},
		func() []byte {
			n, err := far.Read(buf)
			if err != nil {
				t.Error(err)
				return nil
			}
			return buf[HeaderLen:n]
		},
		func() { far.Close() },
	}
}

func streamPortPair(t testing.TB) portPair {
	near, far := streamPair(t)
	return portPair{NewStream(near),
		func(frame []byte) {
			if _, err := far.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)); err != nil {
				t.Error(err)
			}
		},
		func() []byte {
			var n [4]byte
			if _, err := io.ReadFull(far, n[:]); err != nil {
				t.Error(err)
				return nil
			}
			frame := make([]byte, binary.BigEndian.Uint32(n[:]))
			if _, err := io.ReadFull(far, frame); err != nil {
				t.Error(err)
			}
			return frame
		},
		func() { far.Close() },
	}
}

// receiveFrom waits for the port's next frame, without its header.
func receiveFrom(t testing.TB, p Port) []byte {
	t.Helper()
	for {
		frame, err := p.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if frame != nil {
			b := make([]byte, lengthOf(frame))
			gather(b, frame)
			return b[HeaderLen:]
		}
		if err := p.Wait(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPorts(t *testing.T) {
	for name, pair := range map[string]func(testing.TB) portPair{"file": filePair, "stream": streamPortPair} {
		t.Run(name, func(t *testing.T) {
			t.Run("sends", func(t *testing.T) { testPortSends(t, pair(t)) })
			t.Run("receives", func(t *testing.T) { testPortReceives(t, pair(t)) })
			t.Run("wakes", func(t *testing.T) { testPortWakes(t, pair(t)) })
			t.Run("closes", func(t *testing.T) { testPortCloses(t, pair(t)) })
		})
	}
}

func testPortSends(t *testing.T, p portPair) {
	for _, n := range []int{14, 60, 1514, 5000, 65000} {
		frame := ethernet(testMAC, n)
		b := withHeader(Header{}, frame)
		pieces := [][]byte{b[:HeaderLen], b[HeaderLen : HeaderLen+7], b[HeaderLen+7:]}
		for k := 3; k < 12 && n > 1000; k++ { // more pieces than one writev takes
			last := pieces[k-1]
			pieces = append(pieces[:k-1], last[:50], last[50:])
		}
		if err := errors.Join(p.port.Send(pieces), p.port.Flush()); err != nil {
			t.Fatal(err)
		}
		if got := p.read(); !bytes.Equal(got, frame) {
			t.Errorf("a frame of %d bytes arrived as %d", n, len(got))
		}
	}
}

func testPortReceives(t *testing.T, p portPair) {
	sizes := []int{60, 14, 1514, 65000, 60}
	go func() {
		for _, n := range sizes {
			p.write(ethernet(testMAC, n))
		}
	}()
	for _, n := range sizes {
		if got := receiveFrom(t, p.port); !bytes.Equal(got, ethernet(testMAC, n)) {
			t.Errorf("a frame of %d bytes arrived as %d", n, len(got))
		}
	}
}

// testPortWakes has Wake end a Wait and a Send without room, whichever comes
// first, and the port work afterwards.
func testPortWakes(t *testing.T, p portPair) {
	for _, before := range []bool{true, false} {
		done := make(chan error, 1)
		wait := func() { done <- p.port.Wait() }
		if before {
			p.port.Wake()
			go wait()
		} else {
			go wait()
			time.Sleep(2 * time.Millisecond)
			p.port.Wake()
		}
		if err := <-done; err != nil {
			t.Errorf("wait: %v", err)
		}
	}
	frame := [][]byte{withHeader(Header{}, ethernet(testMAC, 60000))}
	done := make(chan error, 1)
	go func() {
		for range 100 {
			if err := errors.Join(p.port.Send(frame), p.port.Flush()); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for woken := false; !woken; {
		p.port.Wake()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("send: %v", err)
			}
			woken = true
		case <-time.After(time.Millisecond):
		}
	}
	p.write(ethernet(testMAC, 77))
	if got := receiveFrom(t, p.port); len(got) != 77 {
		t.Errorf("after it, %d bytes arrived", len(got))
	}
	if got := p.read(); len(got) != 60000 {
		t.Errorf("after it, %d bytes were sent", len(got))
	}
}

func testPortCloses(t *testing.T, p portPair) {
	p.write(ethernet(testMAC, 60))
	p.close()
	receiveFrom(t, p.port)
	for {
		frame, err := p.port.Recv()
		if err == nil && frame == nil {
			err = p.port.Wait()
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, ErrClosed) {
			t.Errorf("error %v", err)
		}
		return
	}
}

func TestStreamOfAnotherProtocolIsRefused(t *testing.T) {
	near, far := streamPair(t)
	p := NewStream(near)
	go io.WriteString(far, "GET / HTTP/1.1\r\n\r\n")
	for {
		_, err := p.Recv()
		if err == nil {
			err = p.Wait()
		}
		if err != nil {
			if errors.Is(err, ErrClosed) {
				t.Error(err)
			}
			return
		}
	}
}

func TestFramesTooShortAreSkipped(t *testing.T) {
	near, far := packetPair(t)
	p, err := NewFilePort(near)
	if err != nil {
		t.Fatal(err)
	}
	far.Write(make([]byte, HeaderLen-1))
	far.Write(withHeader(Header{}, ethernet(testMAC, 60)))
	if got := receiveFrom(t, p); len(got) != 60 {
		t.Errorf("%d bytes", len(got))
	}
}

// FuzzStream feeds a stream with the input and expects frames of allowed sizes,
// or an error.
func FuzzStream(f *testing.F) {
	f.Add(append([]byte{0, 0, 0, 20}, make([]byte, 20)...))
	f.Add([]byte{0, 0, 0, 13, 1})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, in []byte) {
		near, far := streamPair(t)
		go func() { far.Write(in); far.Close() }()
		p := NewStream(near)
		for total := 0; ; {
			frame, err := p.Recv()
			if err == nil && frame == nil {
				err = p.Wait()
			}
			if err != nil {
				return
			}
			if n := lengthOf(frame); frame != nil && (n < HeaderLen+ethernetHeader || n > MaxFrame) {
				t.Fatalf("frame of %d bytes", n)
			} else if total += n; total > len(in)*2 {
				t.Fatal("more frames than bytes")
			}
		}
	})
}
