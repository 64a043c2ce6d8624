package vsockhost

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio/virtiotest"
	"github.com/vitrine-vmm/vitrine/devices/virtio/vsock"
)

// Fields of a packet's header (virtio 1.2 §5.10.6) and operations.
const (
	headerLen                        = 44
	opRequest, opResponse, opRST     = 1, 2, 3
	opShutdown, opRW, opCreditUpdate = 4, 5, 6
)

// echoGuest is a driver with a program that listens at port 7: it sends back
// what it gets and closes when its peer has shut down. Nobody listens at other
// ports.
type echoGuest struct {
	t      *testing.T
	d      *virtiotest.Driver
	rx, tx *virtiotest.Ring
	fwd    uint32
	other  chan []byte // packets of connections that the guest made
}

func newEchoGuest(t *testing.T, dev *vsock.Device) *echoGuest {
	t.Helper()
	g := &echoGuest{t: t, d: virtiotest.New(t, dev, virtiotest.Config{}), other: make(chan []byte, 64)}
	g.d.Start(0)
	g.rx, g.tx = g.d.Rings[0], g.d.Rings[1]
	for range 8 {
		g.rx.Add(nil, 4096)
	}
	g.rx.Kick()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { g.run(stop) })
	t.Cleanup(func() { close(stop); wg.Wait() })
	return g
}

func (g *echoGuest) run(stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		q := g.rx.Next()
		if q == nil {
			time.Sleep(time.Millisecond / 4)
			continue
		}
		p := q.In()[:q.Written]
		g.rx.Submit(q)
		g.rx.Kick()
		if binary.LittleEndian.Uint32(p[20:]) >= 1000 {
			g.other <- p
			continue
		}
		g.answer(p)
	}
}

// answer is the listening program.
func (g *echoGuest) answer(p []byte) {
	le := binary.LittleEndian
	host, guest, data := le.Uint32(p[16:]), le.Uint32(p[20:]), p[headerLen:]
	switch op := le.Uint16(p[30:]); {
	case op == opRequest && guest != 7:
		g.send(guest, host, opRST, nil)
	case op == opRequest:
		g.send(guest, host, opResponse, nil)
	case op == opRW:
		g.fwd += uint32(len(data))
		g.send(guest, host, opRW, data)
	case op == opShutdown:
		g.send(guest, host, opShutdown, nil)
	}
}

// send is a packet from the guest's port to the host's; SHUTDOWN is of both
// directions.
func (g *echoGuest) send(guest, host uint32, op uint16, data []byte) {
	h, le := make([]byte, headerLen), binary.LittleEndian
	le.PutUint64(h, 3)
	le.PutUint64(h[8:], 2)
	le.PutUint32(h[16:], guest)
	le.PutUint32(h[20:], host)
	le.PutUint32(h[24:], uint32(len(data)))
	le.PutUint16(h[28:], 1)
	le.PutUint16(h[30:], op)
	if op == opShutdown {
		le.PutUint32(h[32:], 3)
	}
	le.PutUint32(h[36:], 1<<20)
	le.PutUint32(h[40:], g.fwd)
	g.tx.Do(g.t, [][]byte{h, data})
}

func newBridge(t *testing.T) (*vsock.Device, *Bridge, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "vsock") // t.TempDir may be too long for a UNIX socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	dev, err := vsock.New(vsock.Config{CID: 3})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "v.sock")
	b, err := Open(dev, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return dev, b, path
}

func dial(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(virtiotest.Timeout))
	return c.(*net.UnixConn)
}

// TestClientReachesTheGuest sends its data right behind the request, as a
// client may.
func TestClientReachesTheGuest(t *testing.T) {
	dev, _, path := newBridge(t)
	newEchoGuest(t, dev)
	c := dial(t, path)
	data := bytes.Repeat([]byte("some data "), 20_000)
	go func() {
		fmt.Fprint(c, "connect 7\n")
		c.Write(data)
	}()
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "OK ") {
		t.Fatalf("answer %q, %v", line, err)
	}
	got := make([]byte, len(data))
	if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("the echo is not what was sent: %v", err)
	}
	// The guest closes when the client has shut down, and the client sees it.
	c.CloseWrite()
	if rest, err := io.ReadAll(r); err != nil || len(rest) != 0 {
		t.Errorf("then %q, %v", rest, err)
	}
}

func TestRefusedRequestsAreClosed(t *testing.T) {
	dev, _, path := newBridge(t)
	newEchoGuest(t, dev)
	for _, req := range []string{"CONNECT 8\n", "CONNECT\n", "CONNECT 7 7\n", "CONNECT -1\n", "CONNECT 4294967296\n",
		"HELLO 7\n", "\n", strings.Repeat("x", maxRequest)} {
		c := dial(t, path)
		if _, err := io.WriteString(c, req); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(c); len(b) != 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("request %q was answered with %q, %v", req, b, err)
		}
	}
}

func TestGuestReachesTheHost(t *testing.T) {
	dev, _, path := newBridge(t)
	g := newEchoGuest(t, dev)
	l, err := net.Listen("unix", path+"_52")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	g.send(1000, 52, opRequest, nil)
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	wantOp := func(op uint16) []byte {
		t.Helper()
		p := <-g.other
		if got := binary.LittleEndian.Uint16(p[30:]); got != op {
			t.Fatalf("operation %d, want %d", got, op)
		}
		return p[headerLen:]
	}
	wantOp(opResponse)
	g.send(1000, 52, opRW, []byte("from the guest"))
	p := make([]byte, 100)
	if n, err := c.Read(p); err != nil || string(p[:n]) != "from the guest" {
		t.Errorf("host got %q, %v", p[:n], err)
	}
	io.WriteString(c, "from the host")
	if b := wantOp(opRW); string(b) != "from the host" {
		t.Errorf("guest got %q", b)
	}
	// A guest that closes ends a host program that only waits.
	g.send(1000, 52, opShutdown, nil)
	wantOp(opRST)
	c.SetDeadline(time.Now().Add(virtiotest.Timeout))
	if n, err := c.Read(p); err != io.EOF {
		t.Errorf("host read %q, %v after the guest's close", p[:n], err)
	}
	g.send(1001, 53, opRequest, nil) // nobody listens there
	wantOp(opRST)
	for end := time.Now().Add(virtiotest.Timeout); dev.Stats().Conns > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if n := dev.Stats().Conns; n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

func TestSocketFile(t *testing.T) {
	dev, b, path := newBridge(t)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := Open(dev, path, nil); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second machine at the same path: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
	// What a killed process leaves.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	again, err := Open(dev, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	// A file is nobody's to remove.
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dev, path, nil); err == nil {
		t.Error("a file was replaced")
	}
	if _, err := Open(dev, filepath.Join(filepath.Dir(path), strings.Repeat("x", 120)), nil); err == nil || !strings.Contains(err.Error(), "100") {
		t.Errorf("a long path: %v", err)
	}
}

func TestCloseEndsEverything(t *testing.T) {
	dev, b, path := newBridge(t)
	newEchoGuest(t, dev)
	c, asking := dial(t, path), dial(t, path)
	io.WriteString(c, "CONNECT 7\n")
	if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	io.WriteString(asking, "CON")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{c, asking} {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a connection is open after Close")
		}
	}
}

func FuzzRequest(f *testing.F) {
	for _, s := range []string{"CONNECT 7\n", "connect 4294967295\nrest", "CONNECT", "\n", "CONNECT 99999999999\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		line, err := readLine(r)
		if err != nil {
			return
		}
		if used := len(in) - r.Len(); used > maxRequest || in[used-1] != '\n' {
			t.Fatalf("read %d bytes of %q", used, in)
		}
		if port, err := parseRequest(line); err == nil && !strings.Contains(line, fmt.Sprint(port)) {
			t.Fatalf("%q is port %d", line, port)
		}
	})
}
