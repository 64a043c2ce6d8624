package vsockhost

import (
	"context"
	"io"
	"net"
	"sync"

	"github.com/vitrine-vmm/vitrine/devices/virtio/vsock"
)

// halfCloser is a stream whose sending direction ends alone.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// buffers hold what passes between guest and host.
var buffers = sync.Pool{New: func() any {
	b := make([]byte, 64<<10)
	return &b
}}

// splice carries bytes between guest and host until both directions have
// ended, or one has failed, or the bridge is closed. It closes both.
func (b *Bridge) splice(guest *vsock.Conn, host *net.UnixConn) {
	closeBoth := func() {
		guest.Close()
		host.Close()
	}
	stop := context.AfterFunc(b.ctx, closeBoth)
	defer stop()
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { transfer(host, guest, closeBoth) })
	wg.Go(func() {
		// A guest that has closed its socket takes nothing any more, which
		// a program of the host's that only waits would never learn.
		select {
		case <-guest.Gone():
			_ = host.CloseRead()
		case <-over:
		}
	})
	transfer(guest, host, closeBoth)
	close(over)
	wg.Wait()
	closeBoth()
}

// transfer copies from src to dst, and passes on how it ended.
func transfer(dst, src halfCloser, closeBoth func()) {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	// The plain interfaces make io.CopyBuffer use the buffer.
	_, err := io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, *buf)
	if err == nil {
		err = dst.CloseWrite()
	}
	// A guest that is gone has its last bytes still to be read by the other
	// direction, which then ends by itself.
	if g, ok := dst.(*vsock.Conn); err != nil && !(ok && g.IsGone()) {
		closeBoth()
	}
}
