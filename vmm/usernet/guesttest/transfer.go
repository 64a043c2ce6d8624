package guesttest

import (
	"crypto/sha256"
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
	deadline := time.Now().Add(2 * virtiotest.Timeout)
	type end struct {
		sum [sha256.Size]byte
		err error
	}
	sent, got := make(chan end, 2), make(chan end, 2)
	for i, c := range []net.Conn{a, b} {
		c.SetDeadline(deadline)
		go func() {
			h := sha256.New()
			r := io.LimitReader(rand.NewChaCha8([32]byte{byte(i)}), n)
			_, err := io.Copy(io.MultiWriter(h, struct{ io.Writer }{c}), r)
			sent <- end{[sha256.Size]byte(h.Sum(nil)), err}
		}()
		go func() {
			h := sha256.New()
			_, err := io.CopyN(h, struct{ io.Reader }{c}, n)
			got <- end{[sha256.Size]byte(h.Sum(nil)), err}
		}()
	}
	sums := make(map[[sha256.Size]byte]int)
	for range 2 {
		s, g := <-sent, <-got
		if s.err != nil || g.err != nil {
			t.Fatalf("send: %v; receive: %v", s.err, g.err)
		}
		sums[s.sum]++
		sums[g.sum]--
	}
	for _, k := range sums {
		if k != 0 {
			t.Fatal("the bytes that arrived are not those that were sent")
		}
	}
}
