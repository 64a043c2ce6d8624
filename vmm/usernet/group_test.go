package usernet

import (
	"bytes"
	"os"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	virtionet "github.com/vitrine-vmm/vitrine/devices/virtio/net"
)

func groupFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "group") // t.TempDir may be too long for a UNIX socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestGroupGuestsReachEachOther(t *testing.T) {
	cfg := Config{Group: groupFolder(t)}
	n1, n2, n3 := newTestNetwork(t, cfg, nil), newTestNetwork(t, cfg, nil), newTestNetwork(t, cfg, nil)
	g1, g2, _ := newTestGuest(t, n1, allOffloads), newTestGuest(t, n2, 0), newTestGuest(t, n3, 0)
	if a, b, c := n1.GuestIP().String(), n2.GuestIP().String(), n3.GuestIP().String(); a != "10.0.2.15" || b != "10.0.2.16" || c != "10.0.2.17" {
		t.Fatalf("guests have %s, %s, %s", a, b, c)
	}
	serveEcho(t, g2.listen(7))
	serveEcho(t, g1.listen(8))
	data := randomBytes(1 << 20)
	for port, pair := range map[uint16]struct {
		from *testGuest
		to   *Network
	}{7: {g1, n2}, 8: {g2, n1}} {
		c, err := pair.from.dial(pair.to.GuestIP(), port)
		if err != nil {
			t.Fatal(err)
		}
		if got := echo(t, c, data); !bytes.Equal(got, data) {
			t.Errorf("%d bytes came back, not the %d sent", len(got), len(data))
		}
	}
}

func TestGroupNumberIsFreedAndTaken(t *testing.T) {
	cfg := Config{Group: groupFolder(t)}
	first := newTestNetwork(t, cfg, nil)
	second := newTestNetwork(t, cfg, nil)
	first.Close()
	third := newTestNetwork(t, cfg, nil)
	if third.GuestIP().String() != "10.0.2.15" || second.GuestIP().String() != "10.0.2.16" {
		t.Errorf("guests have %s and %s", third.GuestIP(), second.GuestIP())
	}
	// A killed process leaves its socket's file behind.
	third.group.conn.Close()
	fourth := newTestNetwork(t, cfg, nil)
	if fourth.GuestIP().String() != "10.0.2.15" {
		t.Errorf("the dead member's address was not taken: %s", fourth.GuestIP())
	}
	cfg.GuestIP = fourth.GuestIP()
	if n, err := New(cfg); err == nil {
		n.Close()
		t.Error("an address was given twice")
	}
}

func TestGroupDropsMalformedFrames(t *testing.T) {
	n := newTestNetwork(t, Config{Group: groupFolder(t)}, nil)
	bad := []virtionet.Header{
		{Flags: virtionet.HeaderNeedsCsum, CsumStart: 0xffff, CsumOffset: 0xffff},
		{Flags: virtionet.HeaderNeedsCsum, CsumStart: 30, CsumOffset: 29},
		{GSOType: virtionet.GSOTCPv4, GSOSize: 1000},
		{GSOType: 77},
	}
	for _, h := range bad {
		raw := make([]byte, virtionet.HeaderLen+60)
		h.Encode(raw)
		n.group.accept(raw)
	}
	if n.link.len != 0 {
		t.Errorf("%d malformed frames reached the guest", n.link.len)
	}
	good := make([]byte, virtionet.HeaderLen+60)
	h := virtionet.Header{Flags: virtionet.HeaderNeedsCsum, CsumStart: header.EthernetMinimumSize, CsumOffset: 6}
	h.Encode(good)
	n.group.accept(good)
	if n.link.len != 1 {
		t.Error("a good frame did not reach the guest")
	}
}

// The one who was there answers to the newcomer alone, without having sent to
// all since it came.
func TestANewcomerMaySpeakFirst(t *testing.T) {
	cfg := Config{Group: groupFolder(t)}
	first, newcomer := newTestNetwork(t, cfg, nil), newTestNetwork(t, cfg, nil)
	g1, g2 := newTestGuest(t, first, 0), newTestGuest(t, newcomer, 0)
	serveEcho(t, g1.listen(8))
	c, err := g2.dial(first.GuestIP(), 8)
	if err != nil {
		t.Fatal(err)
	}
	if got := echo(t, c, []byte("hello")); string(got) != "hello" {
		t.Errorf("%q came back", got)
	}
}
