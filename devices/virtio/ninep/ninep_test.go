package ninep_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hugelgupf/p9/p9"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/ninep"
	"github.com/vitrine-vmm/vitrine/devices/virtio/virtiotest"
	"github.com/vitrine-vmm/vitrine/vmm/share"
)

// conn carries 9P messages over a virtqueue, one request at a time.
type conn struct {
	t    testing.TB
	r    *virtiotest.Ring
	room int

	mu    sync.Mutex
	ready sync.Cond
	out   []byte // of a request that is not whole
	in    []byte
	done  bool
}

func newConn(t testing.TB, r *virtiotest.Ring, room int) *conn {
	c := &conn{t: t, r: r, room: room}
	c.ready.L = &c.mu
	return c
}

func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done {
		return 0, io.ErrClosedPipe
	}
	c.out = append(c.out, p...)
	for len(c.out) >= 4 {
		n := int(binary.LittleEndian.Uint32(c.out))
		if len(c.out) < n {
			break
		}
		// The header apart from the rest, the answer in two buffers.
		c.in = append(c.in, c.r.Do(c.t, [][]byte{c.out[:7], c.out[7:n]}, 9, c.room-9)...)
		c.out = c.out[n:]
		c.ready.Broadcast()
	}
	return len(p), nil
}

func (c *conn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.in) == 0 {
		if c.done {
			return 0, io.EOF
		}
		c.ready.Wait()
	}
	n := copy(p, c.in)
	c.in = c.in[n:]
	return n, nil
}

func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done = true
	c.ready.Broadcast()
	return nil
}

// files is a folder with two files.
func files(t testing.TB) p9.Attacher {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string][]byte{"hello": []byte("world"), "big": bytes.Repeat([]byte("0123456789"), 20000)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := share.Open(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func newDevice(t testing.TB, a p9.Attacher) *ninep.Device {
	t.Helper()
	dev, err := ninep.New(ninep.Options{Tag: "home", Attach: a})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(dev.Close)
	return dev
}

func start(t testing.TB, a p9.Attacher) (*virtiotest.Driver, *ninep.Device) {
	t.Helper()
	dev := newDevice(t, a)
	d := virtiotest.New(t, dev, virtiotest.Config{})
	d.Start(^uint64(0))
	return d, dev
}

func attach(t testing.TB, d *virtiotest.Driver) (p9.File, *conn) {
	t.Helper()
	const msize = 64 << 10
	c := newConn(t, d.Rings[0], msize)
	cl, err := p9.NewClient(c, p9.WithMessageSize(msize))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	root, err := cl.Attach("/")
	if err != nil {
		t.Fatal(err)
	}
	return root, c
}

func readFile(t testing.TB, root p9.File, name string) []byte {
	t.Helper()
	_, f, err := root.Walk([]string{name})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, _, err := f.Open(p9.ReadOnly); err != nil {
		t.Fatal(err)
	}
	var out []byte
	buf := make([]byte, 60000)
	for {
		n, err := f.ReadAt(buf, int64(len(out)))
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if n == 0 {
			return out
		}
		out = append(out, buf[:n]...)
	}
}

func TestConfig(t *testing.T) {
	d, _ := start(t, files(t))
	got := make([]byte, 8)
	d.Regs.ReadConfig(0, got)
	if !bytes.Equal(got, []byte{4, 0, 'h', 'o', 'm', 'e', 0, 0}) {
		t.Errorf("config space %q", got)
	}
	for _, o := range []ninep.Options{{Tag: "", Attach: files(t)}, {Tag: string(make([]byte, 256)), Attach: files(t)}, {Tag: "x"}} {
		if _, err := ninep.New(o); err == nil {
			t.Errorf("New accepts %+v", o)
		}
	}
}

func TestFiles(t *testing.T) {
	d, _ := start(t, files(t))
	root, c := attach(t, d)
	if got := readFile(t, root, "hello"); string(got) != "world" {
		t.Errorf("read %q", got)
	}
	if got := readFile(t, root, "big"); !bytes.Equal(got, bytes.Repeat([]byte("0123456789"), 20000)) {
		t.Errorf("read %d bytes otherwise", len(got))
	}
	if _, _, err := root.Walk([]string{"none"}); err == nil {
		t.Error("a file that is not there was found")
	}
	// A pause keeps the connection; a reset ends it.
	if err := d.Transport.Pause(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Transport.State(); err == nil {
		t.Error("a mounted share goes into a snapshot")
	}
	if err := d.Transport.Resume(); err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, root, "hello"); string(got) != "world" {
		t.Errorf("after a pause: read %q", got)
	}
	_ = c.Close()
	d.Start(^uint64(0))
	root, _ = attach(t, d)
	if got := readFile(t, root, "hello"); string(got) != "world" {
		t.Errorf("after a reset: read %q", got)
	}
}

func message(kind byte, tag uint16, body ...byte) []byte {
	m := binary.LittleEndian.AppendUint32(nil, uint32(7+len(body)))
	m = append(m, kind)
	return append(binary.LittleEndian.AppendUint16(m, tag), body...)
}

// rlerror is the errno of an answer that is an error.
func rlerror(t *testing.T, p []byte, tag uint16) uint32 {
	t.Helper()
	if len(p) != 11 || p[4] != 7 || binary.LittleEndian.Uint16(p[5:]) != tag {
		t.Fatalf("answer %x is no error for tag %d", p, tag)
	}
	return binary.LittleEndian.Uint32(p[7:])
}

func TestRefusals(t *testing.T) {
	d, _ := start(t, files(t))
	r := d.Rings[0]
	for _, kind := range []byte{30, 32} {
		if e := rlerror(t, r.Do(t, [][]byte{message(kind, 5)}, 64), 5); e != 95 {
			t.Errorf("message %d: errno %d, want EOPNOTSUPP", kind, e)
		}
	}
	if e := rlerror(t, r.Do(t, [][]byte{message(200, 6)}, 64), 6); e == 0 {
		t.Error("an unknown message is no error")
	}
	// Tversion with an msize of 8192, then a longer message.
	v := message(100, 0xffff, append([]byte{0, 32, 0, 0, 8, 0}, "9P2000.L"...)...)
	if got := r.Do(t, [][]byte{v}, 64); got[4] != 101 || binary.LittleEndian.Uint16(got[5:]) != 0xffff || binary.LittleEndian.Uint32(got[7:]) != 8192 {
		t.Errorf("answer to Tversion: %x", got)
	}
	if e := rlerror(t, r.Do(t, [][]byte{message(104, 7, make([]byte, 9000)...)}, 64), 7); e != 90 {
		t.Errorf("a message longer than msize: errno %d, want EMSGSIZE", e)
	}
	// An msize out of proportion is cut.
	v = message(100, 0xffff, append([]byte{255, 255, 255, 255, 8, 0}, "9P2000.L"...)...)
	if got := r.Do(t, [][]byte{v}, 64); binary.LittleEndian.Uint32(got[7:]) != 1<<20 {
		t.Errorf("answer to Tversion: %x", got)
	}
	// Flushing what is not there is answered.
	if got := r.Do(t, [][]byte{message(108, 9, 77, 0)}, 64); got[4] != 109 {
		t.Errorf("answer to Tflush: %x", got)
	}
}

// TestAnswerTooLong: there is room for an error only.
func TestAnswerTooLong(t *testing.T) {
	d, _ := start(t, files(t))
	v := message(100, 3, append([]byte{0, 32, 0, 0, 8, 0}, "9P2000.L"...)...)
	if e := rlerror(t, d.Rings[0].Do(t, [][]byte{v}, 12), 3); e != 90 {
		t.Errorf("errno %d, want EMSGSIZE", e)
	}
	if got := d.Rings[0].Do(t, [][]byte{v}, 64); got[4] != 101 {
		t.Errorf("the session does not go on: %x", got)
	}
}

func TestBadMessagesNeedReset(t *testing.T) {
	short := message(104, 1)
	short[0] = 6
	long := message(104, 1)
	long[0] = 8
	for name, c := range map[string]struct {
		out []byte
		in  int
	}{
		"no header":           {[]byte{1, 2, 3}, 64},
		"no room":             {message(100, 1), 10},
		"size below a header": {short, 64},
		"size past the end":   {long, 64},
		"body cut off":        {message(104, 1, 1, 2), 64},
	} {
		d, _ := start(t, files(t))
		q := d.Rings[0].Add([][]byte{c.out}, c.in)
		d.Rings[0].Kick()
		if got := d.Rings[0].Wait(t); got != q || got.Written != 0 {
			t.Errorf("%s: not given back unanswered", name)
		}
		for end := time.Now().Add(virtiotest.Timeout); !d.NeedsReset(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: no NEEDS_RESET", name)
			}
		}
		d.Start(^uint64(0))
		root, _ := attach(t, d)
		if got := readFile(t, root, "hello"); string(got) != "world" {
			t.Errorf("%s: after a reset: read %q", name, got)
		}
	}
}

func FuzzNinep(f *testing.F) {
	virtiotest.Fuzz(f, func(t testing.TB) virtio.Device { return newDevice(t, files(t)) })
}

// FuzzMessages sends any sequence of messages: each is answered, or the device
// asks for a reset.
func FuzzMessages(f *testing.F) {
	version := message(100, 0xffff, append([]byte{0, 32, 0, 0, 8, 0}, "9P2000.L"...)...)
	attach := message(104, 1, 1, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0)
	walk := message(110, 2, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 5, 0, 'h', 'e', 'l', 'l', 'o')
	up := message(110, 2, 1, 0, 0, 0, 3, 0, 0, 0, 1, 0, 2, 0, '.', '.')
	open := message(12, 3, 2, 0, 0, 0, 0, 0, 0, 0)
	read := message(116, 4, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255)
	f.Add(bytes.Join([][]byte{version, attach, walk, open, read, message(120, 5, 2, 0, 0, 0)}, nil))
	f.Add(bytes.Join([][]byte{attach, version, up, open, message(24, 5, 1, 0, 0, 0, 255, 255, 0, 0, 0, 0, 0, 0)}, nil))
	f.Fuzz(func(t *testing.T, stream []byte) {
		d, _ := start(t, files(t))
		for n := 0; len(stream) > 7 && n < 30; n++ {
			k := min(max(7, int(binary.LittleEndian.Uint16(stream))), len(stream))
			msg := bytes.Clone(stream[:k])
			binary.LittleEndian.PutUint16(msg[2:], 0)
			stream = stream[k:]
			if len(d.Rings[0].Do(t, [][]byte{msg}, 9000)) == 0 {
				return // given back unanswered: a reset is asked for
			}
		}
	})
}

// TestEndWithRequestsInFlight ends sessions while the server works on many
// messages, some of them not of the protocol.
func TestEndWithRequestsInFlight(t *testing.T) {
	d, _ := start(t, files(t))
	version := message(100, 0xffff, append([]byte{0, 32, 0, 0, 8, 0}, "9P2000.L"...)...)
	root := message(104, 1, 1, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0)
	walk := message(110, 2, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 5, 0, 'h', 'e', 'l', 'l', 'o')
	clunk := message(120, 3, 2, 0, 0, 0)
	for i := range 300 {
		for k := range 8 {
			msg := [][]byte{version, root, walk, clunk}[k%4]
			if k == i%16 {
				msg = message(200, 9, 1, 2, 3)
			}
			d.Rings[0].Add([][]byte{msg}, 9000)
		}
		d.Rings[0].Kick()
		if i%8 != 0 {
			d.Rings[0].Wait(t)
		}
		d.Start(^uint64(0))
	}
	top, _ := attach(t, d)
	if got := readFile(t, top, "hello"); string(got) != "world" {
		t.Errorf("read %q", got)
	}
}
