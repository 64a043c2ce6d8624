package vsock

import (
	"encoding/binary"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio/virtiotest"
)

// waitForReset waits until the device has given up.
func (g *guest) waitForReset(what string) {
	g.t.Helper()
	for end := time.Now().Add(virtiotest.Timeout); !g.d.NeedsReset(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			g.t.Fatalf("%s: the device goes on", what)
		}
	}
}

func TestMalformedPacketsEndTheDevice(t *testing.T) {
	raw := func(n uint32) []byte {
		var b [headerLen]byte
		h := header{srcCID: testCID, dstCID: HostCID, typ: typeStream, op: opRW, len: n}
		h.encode(&b)
		return b[:]
	}
	for name, out := range map[string][][]byte{
		"short header": {raw(0)[:headerLen-1]},
		"length lies":  {raw(100), make([]byte, 99)},
		"huge length":  {raw(0xffff_ffff), make([]byte, 99)},
	} {
		g := newGuest(t, mustNew(t, Config{}), 4, 4096)
		g.ring(queueTx).Add(out)
		g.ring(queueTx).Kick()
		g.waitForReset(name)
		g.start(4, 4096) // and a reset brings it back
		g.dial(1)
	}
	g := newGuest(t, mustNew(t, Config{}), 1, headerLen)
	dialLater(g.dev, 1)
	g.waitForReset("receive buffer without room for a byte")
	g = newGuest(t, mustNew(t, Config{}), 0, 0)
	g.ring(queueTx).Add(nil, 100)
	g.ring(queueTx).Kick()
	g.waitForReset("transmit buffer to write to")
}

// TestFloodOfRequestsIsBounded sends requests without taking the answers: the
// device stops reading instead of remembering them all.
func TestFloodOfRequestsIsBounded(t *testing.T) {
	dev := mustNew(t, Config{QueueSize: 1024})
	g := newGuest(t, dev, 0, 0)
	tx := g.ring(queueTx)
	for i := range 1000 {
		h := header{srcCID: testCID, dstCID: HostCID, srcPort: uint32(i), typ: typeStream, op: opRequest}
		var raw [headerLen]byte
		h.encode(&raw)
		tx.Add([][]byte{raw[:]})
	}
	tx.Kick()
	used := 0
	for idle := 0; idle < 20; {
		if tx.Next() != nil {
			used, idle = used+1, 0
			continue
		}
		idle++
		time.Sleep(time.Millisecond)
	}
	if used != rstBacklog {
		t.Errorf("the device took %d requests whose answers nobody takes, want %d", used, rstBacklog)
	}
	for range 1000 {
		g.ring(queueRx).Add(nil, 100)
	}
	g.ring(queueRx).Kick()
	for ; used < 1000; used++ {
		tx.Wait(t)
	}
	for range 1000 {
		if h, _ := parse(t, g.ring(queueRx).Wait(t)); h.op != opRST {
			t.Fatalf("%v", h.op)
		}
	}
}

// FuzzDevice lets a driver send packets whose headers, lengths, buffers and
// descriptors come from the input. Each takes 48 bytes: a header whose
// addresses are mostly right, and four that say what else to do.
func FuzzDevice(f *testing.F) {
	packet := func(o op, n uint32, mods ...byte) []byte {
		var b [headerLen]byte
		h := header{srcCID: testCID, dstCID: HostCID, srcPort: 1, dstPort: 5, typ: typeStream, op: o, len: n, bufAlloc: 1000}
		h.encode(&b)
		return append(b[:], append(mods, 0, 0, 0, 0)[:4]...)
	}
	f.Add(append(packet(opRequest, 0), packet(opRW, 10, 10)...))
	f.Add(append(packet(opRequest, 0, 0, 50), packet(opShutdown, 0, 0, 60, 1)...))
	f.Add(packet(opRW, 1<<31, 200, 10, 2))
	f.Fuzz(func(t *testing.T, in []byte) {
		dev := mustNew(t, Config{MaxConns: 4, QueueSize: 16})
		l, err := dev.Listen(5)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for c, err := l.Accept(); err == nil; c, err = l.Accept() {
				c.SetDeadline(time.Now().Add(10 * time.Millisecond))
				go func() { c.Write(make([]byte, 100)); c.Read(make([]byte, 10)); c.Close() }()
			}
		}()
		defer l.Close()
		g := newGuest(t, dev, 0, 0)
		rx, tx := g.ring(queueRx), g.ring(queueTx)
		for n := 0; len(in) >= headerLen+4 && n < 8; n++ {
			mods := in[headerLen : headerLen+4]
			rx.Add(nil, int(mods[1])+1)
			tx.Add([][]byte{in[:headerLen], make([]byte, mods[0])})
			switch mods[2] {
			case 1:
				tx.SetDescriptor(uint16(mods[3]%16), virtiotest.Descriptor{
					Addr: 0xfff_0000, Len: binary.LittleEndian.Uint32(mods), Flags: uint16(mods[0] & 7), Next: uint16(mods[1])})
			case 2:
				tx.SetAvailIdx(tx.AvailIdx() + uint16(mods[3]))
			case 3:
				g.d.Regs.SetStatus(0)
				return
			}
			rx.Kick()
			tx.Kick()
			in = in[headerLen+4:]
		}
		g.d.Transport.Pause(t.Context())
		held := 0
		dev.mux.mu.Lock()
		conns := slices.Collect(maps.Values(dev.mux.conns))
		dev.mux.mu.Unlock()
		for _, c := range conns {
			c.mu.Lock()
			held += c.in.n
			c.mu.Unlock()
		}
		if dev.Stats().Conns > 4 || held > 4*bufAlloc {
			t.Fatalf("%d connections hold %d bytes", dev.Stats().Conns, held)
		}
	})
}
