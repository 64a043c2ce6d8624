package ninep_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hugelgupf/p9/fsimpl/templatefs"
	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"github.com/vitrine-vmm/vitrine/devices/virtio/virtiotest"
	"github.com/vitrine-vmm/vitrine/vmm/share"
)

// Errors of the protocol, Linux's.
const (
	eperm  = 1
	eisdir = 21
	einval = 22
)

// plainFiles are files without Vectored.
type plainFiles struct{ p9.Attacher }

func (a plainFiles) Attach() (p9.File, error) {
	f, err := a.Attacher.Attach()
	return plainFile{f}, err
}

type plainFile struct{ p9.File }

func (f plainFile) Walk(names []string) ([]p9.QID, p9.File, error) {
	qids, to, err := f.File.Walk(names)
	return qids, plainFile{to}, err
}

// guest sends messages of its own.
type guest struct {
	t *testing.T
	d *virtiotest.Driver
}

// newGuest starts a device with a folder that has the file "f" of content, and
// opens it as fid 2 with the flags; fid 1 is the folder. msize is 1 MiB.
func newGuest(t *testing.T, content []byte, flags p9.OpenFlags, vectored bool) (g *guest, path string) {
	t.Helper()
	dir := t.TempDir()
	path = filepath.Join(dir, "f")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := share.Open(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	var files p9.Attacher = s
	if !vectored {
		files = plainFiles{s}
	}
	d, _ := start(t, files)
	g = &guest{t, d}
	g.begin(flags)
	return g, path
}

func (g *guest) begin(flags p9.OpenFlags) {
	g.t.Helper()
	le := binary.LittleEndian
	g.want(101, g.do(message(100, 0xffff, append([]byte{0, 0, 16, 0, 8, 0}, "9P2000.L"...)...), 64))
	g.want(105, g.do(message(104, 1, 1, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0), 64))
	g.want(111, g.do(message(110, 1, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 1, 0, 'f'), 64))
	g.want(13, g.do(message(12, 1, le.AppendUint32([]byte{2, 0, 0, 0}, uint32(flags))...), 64))
}

func (g *guest) do(msg []byte, in ...int) []byte {
	g.t.Helper()
	return g.d.Rings[0].Do(g.t, [][]byte{msg}, in...)
}

func (g *guest) want(kind byte, got []byte) {
	g.t.Helper()
	if len(got) < 7 || got[4] != kind {
		g.t.Fatalf("answer %x, want type %d", got, kind)
	}
}

func ioBody(fid byte, off uint64, count uint32) []byte {
	le := binary.LittleEndian
	return le.AppendUint32(le.AppendUint64([]byte{fid, 0, 0, 0}, off), count)
}

// read is a Tread whose answer has the buffers in; it returns the data.
func (g *guest) read(fid byte, off uint64, count uint32, in ...int) []byte {
	g.t.Helper()
	le := binary.LittleEndian
	p := g.do(message(116, 7, ioBody(fid, off, count)...), in...)
	g.want(117, p)
	if int(le.Uint32(p)) != len(p) || le.Uint16(p[5:]) != 7 || int(le.Uint32(p[7:])) != len(p)-11 {
		g.t.Fatalf("Rread of %d bytes: %x", len(p), p[:11])
	}
	return p[11:]
}

// twrite is a Twrite cut into buffers of n bytes.
func twrite(fid byte, off uint64, data []byte, n int) (out [][]byte) {
	m := message(118, 8, append(ioBody(fid, off, uint32(len(data))), data...)...)
	for len(m) > 0 {
		k := min(n, len(m))
		out, m = append(out, m[:k]), m[k:]
	}
	return out
}

func (g *guest) write(fid byte, off uint64, data []byte, n int) int {
	g.t.Helper()
	p := g.d.Rings[0].Do(g.t, twrite(fid, off, data, n), 11)
	g.want(119, p)
	return int(binary.LittleEndian.Uint32(p[7:]))
}

func TestData(t *testing.T) {
	content := make([]byte, 300000)
	for i := range content {
		content[i] = byte(i * 7 >> 3)
	}
	for name, vectored := range map[string]bool{"vectored": true, "plain": false} {
		t.Run(name, func(t *testing.T) {
			g, path := newGuest(t, content, p9.ReadWrite, vectored)
			for _, in := range [][]int{{400000}, {11, 300000}, {3, 4, 5, 100000, 1, 200000, 100}} {
				if got := g.read(2, 0, 400000, in...); !bytes.Equal(got, content) {
					t.Errorf("buffers %v: read %d bytes otherwise", in, len(got))
				}
			}
			if got := g.read(2, 299990, 4096, 11, 5, 5, 5); !bytes.Equal(got, content[299990:]) {
				t.Errorf("at the end: %x", got)
			}
			if got := g.read(2, 300000, 4096, 5000); len(got) != 0 {
				t.Errorf("past the end: %x", got)
			}
			// As much as there is room for, and as the msize allows.
			if got := g.read(2, 5, 0xffffffff, 11, 9); !bytes.Equal(got, content[5:14]) {
				t.Errorf("room for nine bytes: %x", got)
			}
			for i, n := range []int{1 << 20, 100, 23, 4096} {
				data := bytes.Repeat([]byte{byte('a' + i)}, 2000)
				if n == 23 {
					data = data[:20]
				}
				if k := g.write(2, uint64(1000*i), data, n); k != len(data) {
					t.Errorf("%d bytes written of %d", k, len(data))
				}
				copy(content[1000*i:], data)
			}
			g.write(2, uint64(len(content))+10, []byte("x"), 1<<20)
			got, err := os.ReadFile(path)
			if want := append(append(bytes.Clone(content), make([]byte, 10)...), 'x'); err != nil || !bytes.Equal(got, want) {
				t.Errorf("the file has not what was written: %d bytes, %v", len(got), err)
			}
			if k := g.write(2, 0, nil, 100); k != 0 {
				t.Errorf("%d bytes written of none", k)
			}
		})
	}
}

func TestDataAppends(t *testing.T) {
	g, path := newGuest(t, []byte("one"), p9.WriteOnly|0o2000, true) // O_APPEND
	g.write(2, 0, []byte(" two"), 30)
	if got, err := os.ReadFile(path); string(got) != "one two" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// TestDataRefused: what may not be read or written is not, and the guest's
// memory stays as it was.
func TestDataRefused(t *testing.T) {
	content := []byte("never changed")
	for _, c := range []struct {
		name  string
		flags p9.OpenFlags
		msg   []byte
		errno uint32
	}{
		{"read of a file open for writing", p9.WriteOnly, message(116, 3, ioBody(2, 0, 8)...), eperm},
		{"write to a file open for reading", p9.ReadOnly, message(118, 3, append(ioBody(2, 0, 1), 'x')...), eperm},
		{"read of a fid that is not open", p9.ReadOnly, message(116, 3, ioBody(1, 0, 8)...), einval},
		{"write to a fid that is not open", p9.ReadOnly, message(118, 3, append(ioBody(1, 0, 1), 'x')...), einval},
		{"read of no fid", p9.ReadOnly, message(116, 3, ioBody(9, 0, 8)...), 9},
		{"read at a negative offset", p9.ReadOnly, message(116, 3, ioBody(2, 1<<63, 8)...), einval},
		{"write at a negative offset", p9.WriteOnly, message(118, 3, append(ioBody(2, 1<<63, 1), 'x')...), einval},
		{"read over the largest offset", p9.ReadOnly, message(116, 3, ioBody(2, 1<<63-4, 8)...), einval},
	} {
		g, path := newGuest(t, content, c.flags, true)
		q := g.d.Rings[0].Add([][]byte{c.msg}, 100)
		g.d.Rings[0].Kick()
		if g.d.Rings[0].Wait(t) != q {
			t.Fatal("another request came back")
		}
		in := q.In()
		if e := rlerror(t, in[:q.Written], 3); e != c.errno {
			t.Errorf("%s: errno %d, want %d", c.name, e, c.errno)
		}
		if !bytes.Equal(in[11:], bytes.Repeat([]byte{0xa5}, 89)) {
			t.Errorf("%s: data behind the error: %x", c.name, in[11:])
		}
		if got, err := os.ReadFile(path); !bytes.Equal(got, content) || err != nil {
			t.Errorf("%s: the file is %q now, %v", c.name, got, err)
		}
	}
	g, _ := newGuest(t, content, p9.ReadOnly, true)
	g.want(111, g.do(message(110, 1, 1, 0, 0, 0, 5, 0, 0, 0, 0, 0), 64))
	g.want(13, g.do(message(12, 1, 5, 0, 0, 0, 0, 0, 0, 0), 64))
	if e := rlerror(t, g.do(message(116, 3, ioBody(5, 0, 8)...), 64), 3); e != eisdir {
		t.Errorf("read of a directory: errno %d, want EISDIR", e)
	}
}

// TestDataBeyondMsize: the answer is not longer than was negotiated.
func TestDataBeyondMsize(t *testing.T) {
	g, _ := newGuest(t, make([]byte, 20000), p9.ReadOnly, true)
	g.want(101, g.do(message(100, 0xffff, append([]byte{0, 32, 0, 0, 8, 0}, "9P2000.L"...)...), 64))
	g.want(105, g.do(message(104, 1, 1, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0), 64))
	g.want(111, g.do(message(110, 1, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 1, 0, 'f'), 64))
	g.want(13, g.do(message(12, 1, 2, 0, 0, 0, 0, 0, 0, 0), 64))
	if got := g.read(2, 0, 20000, 30000); len(got) != 8192-11 {
		t.Errorf("read %d bytes with an msize of 8192", len(got))
	}
}

// TestVersionBeginsAnew: a Tversion ends the use of all fids, and closes their
// files.
func TestVersionBeginsAnew(t *testing.T) {
	g, _ := newGuest(t, []byte("x"), p9.ReadOnly, true)
	for range 3 {
		g.want(101, g.do(message(100, 0xffff, append([]byte{0, 0, 16, 0, 8, 0}, "9P2000.L"...)...), 64))
		if e := rlerror(t, g.do(message(116, 3, ioBody(2, 0, 8)...), 64), 3); e != 9 {
			t.Errorf("read of a fid of before: errno %d, want EBADF", e)
		}
		g.begin(p9.ReadOnly)
		if got := g.read(2, 0, 8, 64); string(got) != "x" {
			t.Errorf("read %q", got)
		}
	}
}

// stuckFile is a file whose reads wait.
type stuckFile struct {
	templatefs.NoopFile
	files *stuckFiles
}

type stuckFiles struct {
	reading, goOn chan struct{}
	once          sync.Once
	synced        atomic.Int32
}

func (s *stuckFiles) Attach() (p9.File, error) { return stuckFile{files: s}, nil }

func (f stuckFile) GetAttr(p9.AttrMask) (p9.QID, p9.AttrMask, p9.Attr, error) {
	return p9.QID{}, p9.AttrMask{Mode: true}, p9.Attr{Mode: p9.ModeRegular}, nil
}
func (f stuckFile) FSync() error                              { f.files.synced.Add(1); return linux.EIO }
func (f stuckFile) Open(p9.OpenFlags) (p9.QID, uint32, error) { return p9.QID{}, 0, nil }
func (f stuckFile) Close() error                              { return nil }
func (f stuckFile) WriteVec([][]byte, int64) (int, error)     { return 0, nil }
func (f stuckFile) ReadVec(bufs [][]byte, _ int64) (int, error) {
	f.files.once.Do(func() { close(f.files.reading) })
	<-f.files.goOn
	return copy(bufs[0], "late"), nil
}

// TestSync: Tfsync is the file's, and so is its error.
func TestSync(t *testing.T) {
	s := &stuckFiles{}
	d, _ := start(t, s)
	g := &guest{t, d}
	g.want(101, g.do(message(100, 0xffff, append([]byte{0, 0, 16, 0, 8, 0}, "9P2000.L"...)...), 64))
	g.want(105, g.do(message(104, 1, 2, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0), 64))
	g.want(13, g.do(message(12, 1, 2, 0, 0, 0, 0, 0, 0, 0), 64))
	if e := rlerror(t, g.do(message(50, 4, 2, 0, 0, 0, 0, 0, 0, 0), 64), 4); e != 5 || s.synced.Load() != 1 {
		t.Errorf("errno %d after %d calls of FSync, want EIO after one", e, s.synced.Load())
	}
}

// TestBuffersStayUntilTheFileIsDone: a session that fails while a file is read
// gives the buffers back when the file writes no more to them.
func TestBuffersStayUntilTheFileIsDone(t *testing.T) {
	s := &stuckFiles{reading: make(chan struct{}), goOn: make(chan struct{})}
	d, _ := start(t, s)
	g := &guest{t, d}
	r := d.Rings[0]
	g.want(101, g.do(message(100, 0xffff, append([]byte{0, 0, 16, 0, 8, 0}, "9P2000.L"...)...), 64))
	g.want(105, g.do(message(104, 1, 2, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0), 64))
	g.want(13, g.do(message(12, 1, 2, 0, 0, 0, 0, 0, 0, 0), 64))
	q := r.Add([][]byte{message(116, 3, ioBody(2, 0, 4)...)}, 11, 4)
	r.Kick()
	<-s.reading
	bad := r.Add([][]byte{message(104, 1, 1, 2)}, 64) // cut off: ends the session
	r.Kick()
	for range 20 {
		time.Sleep(time.Millisecond)
		if r.Next() != nil {
			t.Fatal("a request came back while a file was at work")
		}
	}
	close(s.goOn)
	got := []*virtiotest.Request{r.Wait(t), r.Wait(t)}
	if !slices.Contains(got, q) || !slices.Contains(got, bad) || q.Written != 0 || bad.Written != 0 {
		t.Error("the requests are not given back unanswered")
	}
	if !bytes.Equal(q.In()[:11], bytes.Repeat([]byte{0xa5}, 11)) {
		t.Errorf("an answer of a failed session: %x", q.In())
	}
}
