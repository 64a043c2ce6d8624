package vsock

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"syscall"
	"testing"
)

// restoreAnd is restore with something done before the device serves.
func (g *guest) restoreAnd(before func()) {
	g.t.Helper()
	err := g.d.Transport.Pause(context.Background())
	state, serr := g.dev.State()
	err = errors.Join(err, serr, g.dev.SetState(state))
	before()
	if err := errors.Join(err, g.d.Transport.Resume()); err != nil {
		g.t.Fatal(err)
	}
}

// A stream that is kept goes on in a restored guest with what its user had not
// dealt with; the guest's others end.
func TestResumedStream(t *testing.T) {
	dev := mustNew(t, Config{})
	g := newGuest(t, dev, 16, 4096)
	kept, h := g.dial(4)
	_, other := g.dial(5)
	kept.Keep()
	p := make([]byte, 64)
	for _, s := range []string{"done,", "read,"} {
		g.answer(h, opRW, []byte(s))
		n, err := io.ReadFull(kept, p[:len(s)])
		if err != nil || string(p[:n]) != s {
			t.Fatal(string(p[:n]), err)
		}
		if s == "done," {
			kept.Done()
		}
	}
	g.answer(h, opRW, []byte("unread"))
	for kept.held() < 6 { // the device takes it
		g.ring(queueTx).Kick()
	}
	var again *Conn
	g.restoreAnd(func() {
		c, err := dev.Resume(kept.HostPort())
		if err != nil {
			t.Fatal(err)
		}
		again = c.(*Conn)
		if _, err := dev.Resume(kept.HostPort()); err == nil {
			t.Error("a stream was resumed twice")
		}
	})
	if _, err := io.ReadAll(kept); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the stream of the life before: %v", err)
	}
	if r, _ := g.want(opRST); r.srcPort != other.srcPort || r.dstPort != 5 {
		t.Errorf("%d:%d was reset", r.srcPort, r.dstPort)
	}
	n, err := io.ReadFull(again, p[:11])
	if err != nil || string(p[:n]) != "read,unread" {
		t.Errorf("the resumed stream has %q, %v", p[:n], err)
	}
	if c, _ := g.want(opCreditUpdate); c.fwdCnt < 10 || c.srcPort != h.srcPort {
		t.Errorf("credit: %+v", c)
	}
	go again.Write([]byte("more"))
	if _, data := g.want(opRW); string(data) != "more" {
		t.Errorf("the guest got %q", data)
	}
	if next, _ := g.dial(4); next.HostPort() == kept.HostPort() || next.HostPort() == other.srcPort {
		t.Error("a new stream has the port of an old one")
	}
	if events := g.ring(queueEvent); events.Next() != nil {
		t.Error("the transport was reset")
	}
}

func (c *Conn) held() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.in.n
}

// Streams that nobody keeps, or that are being written to, cannot go on.
func TestStreamsThatCannotGoOn(t *testing.T) {
	dev := mustNew(t, Config{})
	g := newGuest(t, dev, 16, 4096)
	plain, _ := g.dial(4)
	writing, _ := g.dial(5)
	writing.Keep()
	go writing.Write(make([]byte, 1<<20)) // more than the guest takes
	for range 8 {
		g.want(opRW)
	}
	g.restoreAnd(func() {
		for _, c := range []*Conn{plain, writing} {
			if _, err := dev.Resume(c.HostPort()); err == nil {
				t.Errorf("port %d was resumed", c.HostPort())
			}
		}
	})
	g.ring(queueEvent).Wait(t)
}

func FuzzState(f *testing.F) {
	f.Add([]byte(`{"Version":2,"CID":3}`))
	b, _ := json.Marshal(deviceState{Version: stateVersion, CID: 3, Streams: []*streamState{
		{Local: firstEphemeral, Peer: 4, Kept: true, Again: []byte("a"), In: []byte("b"), FwdCnt: 2, PeerAlloc: 1 << 18},
		{Local: 0xffff_fffe, Peer: 5},
	}})
	f.Add(b)
	f.Fuzz(func(t *testing.T, state []byte) {
		dev := mustNew(t, Config{})
		if dev.SetState(state) != nil {
			return
		}
		if c, err := dev.Resume(firstEphemeral); err == nil {
			p := make([]byte, 16)
			for c.(*Conn).unreadNow() > 0 {
				if _, err := c.Read(p); err != nil {
					t.Fatal(err)
				}
			}
		}
		if _, err := dev.State(); err != nil {
			t.Fatal(err)
		}
	})
}

func (c *Conn) unreadNow() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unread()
}
