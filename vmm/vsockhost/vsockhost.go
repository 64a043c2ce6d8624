// Package vsockhost joins a guest's virtio sockets to UNIX sockets of the
// host, after Firecracker's convention (its docs/vsock.md), so that any program
// can talk to the guest:
//
//   - To reach a port of the guest's, a program connects to PATH, writes
//     "CONNECT PORT\n" and reads "OK HOSTPORT\n"; from then on the socket is the
//     stream. Where nobody listens in the guest the socket is closed instead.
//   - When a program in the guest connects to port N of the host (context ID
//     2), the stream goes to whoever listens at the UNIX socket PATH_N. Where
//     nobody does the guest's connection is refused.
package vsockhost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio/vsock"
)

const (
	// maxRequest is the longest first line of a client's, newline included.
	maxRequest = 32

	// maxAsking bounds the clients that are not connected to the guest yet.
	maxAsking = 128

	// askTimeout is how long a client may take to ask, and the guest to
	// answer it.
	askTimeout = 30 * time.Second
)

// Bridge is the UNIX sockets of one device.
type Bridge struct {
	dev    *vsock.Device
	path   string
	l      *net.UnixListener
	log    *slog.Logger
	asking chan struct{} // a token for each client that is not connected yet

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// Open listens at path for programs of the host's, and takes the connections
// of the guest's that no Listener of dev's takes. A socket that a dead process
// left at path is replaced. Only the user who runs the VMM may connect (mode
// 0600). log may be nil.
func Open(dev *vsock.Device, path string, log *slog.Logger) (*Bridge, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l, err := listen(path)
	if err != nil {
		return nil, fmt.Errorf("open vsock at %s: %w", path, err)
	}
	b := &Bridge{dev: dev, path: path, l: l, log: log, asking: make(chan struct{}, maxAsking)}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	dev.Forward(b.forward)
	b.wg.Go(b.accept)
	return b, nil
}

// listen binds path, over a socket that nobody serves any more.
func listen(path string) (*net.UnixListener, error) {
	addr := &net.UnixAddr{Name: path, Net: "unix"}
	l, err := net.ListenUnix("unix", addr)
	if errors.Is(err, syscall.EADDRINUSE) && abandoned(addr) {
		if err = os.Remove(path); err == nil {
			l, err = net.ListenUnix("unix", addr)
		}
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%w: another machine listens there, or it is no socket: choose another path", err)
	case errors.Is(err, syscall.EINVAL):
		return nil, fmt.Errorf("%w: the path has %d bytes, and UNIX sockets allow about 100", err, len(path))
	case err != nil:
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// abandoned says whether addr is a socket that no process listens at.
func abandoned(addr *net.UnixAddr) bool {
	info, err := os.Lstat(addr.Name)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return false
	}
	c, err := net.DialUnix("unix", nil, addr)
	if err == nil {
		c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// Close stops listening, removes the socket and ends all its connections.
func (b *Bridge) Close() error {
	b.dev.Forward(nil)
	b.cancel()
	err := b.l.Close()
	b.wg.Wait()
	return err
}

// accept takes the clients of the host's until Close.
func (b *Bridge) accept() {
	for {
		c, err := b.l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no descriptor left
			b.log.Warn("accept on the vsock's UNIX socket", "err", err)
			b.pause(100 * time.Millisecond)
			continue
		}
		select {
		case b.asking <- struct{}{}:
			b.wg.Go(func() { b.serve(c) })
		default:
			c.Close()
		}
	}
}

// pause waits for d, or until Close.
func (b *Bridge) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-b.ctx.Done():
	}
}

// serve connects one client to the guest.
func (b *Bridge) serve(client *net.UnixConn) {
	stop := context.AfterFunc(b.ctx, func() { client.Close() })
	guest, err := b.connect(client)
	<-b.asking
	stop()
	if err != nil {
		b.log.Debug("connect a client to the guest", "err", err)
		client.Close()
		return
	}
	b.splice(guest, client)
}

// connect does what a client's first line asks for, and answers it.
func (b *Bridge) connect(client *net.UnixConn) (*vsock.Conn, error) {
	ctx, cancel := context.WithTimeout(b.ctx, askTimeout)
	defer cancel()
	if err := client.SetDeadline(time.Now().Add(askTimeout)); err != nil {
		return nil, err
	}
	line, err := readLine(client)
	if err != nil {
		return nil, fmt.Errorf("read the request: %w", err)
	}
	port, err := parseRequest(line)
	if err != nil {
		return nil, err
	}
	guest, err := b.dev.Dial(ctx, port)
	if err != nil {
		return nil, err
	}
	local := guest.LocalAddr().(vsock.Addr)
	_, err = fmt.Fprintf(client, "OK %d\n", local.Port)
	if err == nil {
		err = client.SetDeadline(time.Time{})
	}
	if err != nil {
		guest.Close()
		return nil, err
	}
	return guest.(*vsock.Conn), nil
}

// readLine reads up to a newline, and not a byte more: what follows is the
// stream's.
func readLine(r io.Reader) (string, error) {
	var line [maxRequest]byte
	for i := range line {
		if _, err := io.ReadFull(r, line[i:i+1]); err != nil {
			return "", err
		}
		if line[i] == '\n' {
			return string(line[:i]), nil
		}
	}
	return "", fmt.Errorf("no newline in the first %d bytes", maxRequest)
}

// parseRequest reads "CONNECT PORT".
func parseRequest(line string) (port uint32, err error) {
	words := strings.Fields(line)
	if len(words) != 2 || !strings.EqualFold(words[0], "connect") {
		return 0, fmt.Errorf("request %q: want CONNECT PORT", line)
	}
	n, err := strconv.ParseUint(words[1], 10, 32)
	if err != nil {
		return 0, fmt.Errorf("request %q: port: %w", line, err)
	}
	return uint32(n), nil
}

// forward connects the guest to the socket that belongs to the port it asks
// for. The device bounds how many such requests there are.
func (b *Bridge) forward(r vsock.Request) {
	b.wg.Go(func() {
		d := net.Dialer{Timeout: askTimeout}
		c, err := d.DialContext(b.ctx, "unix", b.path+"_"+strconv.FormatUint(uint64(r.Port()), 10))
		if err != nil {
			b.log.Debug("connect the guest to the host", "port", r.Port(), "err", err)
			r.Refuse()
			return
		}
		guest, err := r.Accept()
		if err != nil {
			c.Close()
			return
		}
		b.splice(guest.(*vsock.Conn), c.(*net.UnixConn))
	})
}
