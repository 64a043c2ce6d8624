package usernet

import (
	"io"
	"net"
	"net/netip"
	"testing"
)

// BenchmarkTCP is the rate of one connection between the guest and a server on
// the host. The guest is a second stack in this process, so it has a good part
// of the cost.
func BenchmarkTCP(b *testing.B) {
	for name, toGuest := range map[string]bool{"from-guest": false, "to-guest": true} {
		b.Run(name, func(b *testing.B) {
			l, port := listenLocal(b)
			n := newTestNetwork(b, Config{}, nil)
			g := newTestGuest(b, n, allOffloads)
			accepted := make(chan net.Conn, 1)
			go func() {
				c, _ := l.Accept()
				accepted <- c
			}()
			guest, err := g.dial(n.Gateway(), port)
			if err != nil {
				b.Fatal(err)
			}
			defer guest.Close()
			from, to := guest, <-accepted
			defer to.Close()
			if toGuest {
				from, to = to, from
			}
			const piece = 256 << 10
			b.SetBytes(piece)
			go func() {
				buf := make([]byte, piece)
				for range b.N {
					if _, err := from.Write(buf); err != nil {
						return
					}
				}
			}()
			b.ResetTimer()
			if _, err := io.CopyN(io.Discard, to, int64(b.N)*piece); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkNew is what a network adds to the start of a machine.
func BenchmarkNew(b *testing.B) {
	cfg := Config{Publish: []Publish{{Host: netip.MustParseAddrPort("127.0.0.1:0"), Guest: 22}}}
	for b.Loop() {
		n, err := New(cfg)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		n.Close()
		b.StartTimer()
	}
}
