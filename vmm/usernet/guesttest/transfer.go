package guesttest

import (
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio/virtiotest"
)

// Transfer sends n random bytes each way at once between two ends of a
// connection, and compares what arrives by its SHA-256.
func Transfer(t testing.TB, a, b net.Conn, n int64) {
	t.Helper()
	back := make(chan error, 1)
	go func() { back <- send(b, a, n) }()
	if err := send(a, b, n); err != nil {
		t.Fatal(err)
	}
	if err := <-back; err != nil {
		t.Fatal(err)
	}
}

// Send sends n random bytes one way, and compares what arrives.
func Send(t testing.TB, from, to net.Conn, n int64) {
	t.Helper()
	if err := send(from, to, n); err != nil {
		t.Fatal(err)
	}
}

func send(from, to net.Conn, n int64) error {
	deadline := time.Now().Add(2 * virtiotest.Timeout)
	_ = from.SetWriteDeadline(deadline)
	_ = to.SetReadDeadline(deadline)
	sent := make(chan error, 1)
	out, in := sha256.New(), sha256.New()
	go func() {
		r := io.LimitReader(rand.NewChaCha8([32]byte{byte(n)}), n)
		_, err := io.Copy(io.MultiWriter(out, struct{ io.Writer }{from}), r)
		sent <- err
	}()
	k, err := io.CopyN(in, struct{ io.Reader }{to}, n)
	if serr := <-sent; serr != nil {
		return fmt.Errorf("send: %w", serr)
	}
	if err != nil {
		return fmt.Errorf("receive, after %d of %d bytes: %w", k, n, err)
	}
	if [sha256.Size]byte(in.Sum(nil)) != [sha256.Size]byte(out.Sum(nil)) {
		return fmt.Errorf("the %d bytes that arrived are not those that were sent", n)
	}
	return nil
}
