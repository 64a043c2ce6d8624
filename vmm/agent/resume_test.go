package agent

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"
)

// keptConn is a connection as a *vsock.Conn is one.
type keptConn struct {
	net.Conn
	kept, done *atomic.Int32
}

func (k keptConn) Keep()            { k.kept.Add(1) }
func (k keptConn) Done()            { k.done.Add(1) }
func (k keptConn) HostPort() uint32 { return 7 }

func TestProgramThatIsKept(t *testing.T) {
	c := newClient(t)
	var kept, done atomic.Int32
	dial := c.dial
	c.dial = func(ctx context.Context) (net.Conn, error) {
		nc, err := dial(ctx)
		return keptConn{nc, &kept, &done}, err
	}
	var out bytes.Buffer
	var port uint32
	passed := 0
	cmd := &Command{Args: []string{"/bin/sh", "-c", "echo hello; exit 4"}, Env: []string{"PATH=/bin:/usr/bin"}, Stdout: &out,
		Kept:   func(k KeptConn) { port = k.HostPort() },
		Passed: func() { passed++ },
	}
	s, err := c.Exec(timeout(t), cmd)
	if err != nil || s.Code != 4 || out.String() != "hello\n" {
		t.Errorf("status %v, %v, output %q", s, err, out.String())
	}
	// Once when the program runs, and once for each piece of output.
	if port != 7 || kept.Load() != 1 || int(done.Load()) != 1+passed || passed == 0 {
		t.Errorf("port %d, kept %d times, done %d times of %d", port, kept.Load(), done.Load(), passed)
	}
	cmd.Stdin = strings.NewReader("")
	if _, err := c.Exec(timeout(t), cmd); err == nil || !strings.Contains(err.Error(), "no input") {
		t.Errorf("with input: %v", err)
	}
	cmd.Stdin, c.dial = nil, dial
	if _, err := c.Exec(timeout(t), cmd); err == nil || !strings.Contains(err.Error(), "cannot go into a snapshot") {
		t.Errorf("over a connection that cannot be kept: %v", err)
	}
}

func TestResume(t *testing.T) {
	c := newClient(t)
	cmd := &Command{Args: []string{"/bin/sh", "-c", "read x; echo went on; exit 5"}, Env: []string{"PATH=/bin:/usr/bin"}}
	k, err := c.start(timeout(t), reqExec, cmd.encode())
	if err != nil {
		t.Fatal(err)
	}
	if f, _, err := k.next(); err != nil || f != outStarted {
		t.Fatal(f, err)
	}
	k.stop() // here the machine is saved, and restored
	if err := k.send(inStdinEnd, nil); err != nil {
		t.Fatal(err)
	}
	var kept, done atomic.Int32
	var out bytes.Buffer
	s, err := c.Resume(timeout(t), keptConn{k.Conn, &kept, &done}, &Command{Stdout: &out})
	if err != nil || s.Code != 5 || out.String() != "went on\n" || done.Load() == 0 {
		t.Errorf("status %v, %v, output %q, done %d times", s, err, out.String(), done.Load())
	}
}
