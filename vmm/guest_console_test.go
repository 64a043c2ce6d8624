package vmm_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/console"
	"github.com/vitrine-vmm/vitrine/vmm"
)

// noise is n random bytes, the same for the same seed.
func noise(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func sum(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }

// waitFor waits until ok says so.
func waitFor(t testing.TB, limit time.Duration, what func() string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what())
		}
	}
}

// 256 KiB in base64 through the serial port, by interrupts.
func TestGuestSerialPortSendsIntact(t *testing.T) {
	t.Parallel()
	out := &lines{}
	g := bootGuest(t, vmm.Config{Console: vmm.Serial{Out: out}, CommandLine: "quiet"})
	checkConsole(t, g, "/dev/ttyS0", out, 256<<10)
}

// 256 KiB of any bytes typed at the serial port: none is lost, however late the
// guest's driver takes them.
func TestGuestSerialPortReceivesIntact(t *testing.T) {
	t.Parallel()
	input, keyboard := io.Pipe()
	defer keyboard.Close()
	g := bootGuest(t, vmm.Config{Console: vmm.Serial{In: input, Out: &lines{}}, CommandLine: "quiet"})
	in := noise(256<<10, 8)
	wait := g.background(g.probe(), "take", "/dev/ttyS0", fmt.Sprint(len(in)))
	go func() { _, _ = keyboard.Write(in) }()
	if got := wait(); !strings.Contains(got, sum(in)) {
		t.Errorf("to the guest: %q, want %s", got, sum(in))
	}
}

// checkConsole sends n random bytes in base64 through a terminal of the
// guest's.
func checkConsole(t *testing.T, g *guest, dev string, out *lines, n int) {
	t.Helper()
	text := base64.StdEncoding.EncodeToString(noise(n, 7))
	g.put("/tmp/text", []byte(text), 0o600)
	before := out.Len()
	g.must(g.probe(), "give", dev, "/tmp/text")
	waitFor(t, patience, func() string { return fmt.Sprintf("%d bytes of %d arrived", out.Len()-before, len(text)) },
		func() bool { return out.Len() >= before+len(text) })
	if got := out.String()[before:]; got != text {
		t.Errorf("%s: %d bytes arrived, not what was sent", dev, len(got))
	}
}

// hvc0 carries any bytes both ways, over both transports.
func TestGuestVirtioConsole(t *testing.T) {
	eachTransport(t, func(t *testing.T, transport vmm.Transport) {
		input, keyboard := io.Pipe()
		defer keyboard.Close()
		out := &lines{}
		hvc := console.New("console", input, out)
		g := bootGuest(t, vmm.Config{Transport: transport, Devices: []virtio.Device{hvc}})
		checkConsole(t, g, "/dev/hvc0", out, 192<<10)

		in := noise(256<<10, 9)
		wait := g.background(g.probe(), "take", "/dev/hvc0", fmt.Sprint(len(in)))
		go func() { _, _ = keyboard.Write(in) }()
		if got := wait(); !strings.Contains(got, sum(in)) {
			t.Errorf("to the guest: %q, want %s", got, sum(in))
		}

		before := out.Len()
		g.put("/tmp/noise", in, 0o600)
		g.must(g.probe(), "give", "/dev/hvc0", "/tmp/noise")
		waitFor(t, patience, func() string { return fmt.Sprintf("%d bytes arrived", out.Len()-before) },
			func() bool { return out.Len() >= before+len(in) })
		if !bytes.Equal([]byte(out.String()[before:]), in) {
			t.Error("from the guest: not what was sent")
		}
	})
}
