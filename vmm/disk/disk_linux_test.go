package disk

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vitrine-vmm/vitrine/devices/virtio/blk"
	"github.com/vitrine-vmm/vitrine/devices/virtio/blk/blktest"
)

func newFile(t testing.TB, dir string, size int64) string {
	t.Helper()
	f, err := os.CreateTemp(dir, "disk")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(f.Name()) })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// memoryDir is a folder on a tmpfs.
func memoryDir(t testing.TB) string {
	t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs("/dev/shm", &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
		t.Skip("no tmpfs at /dev/shm")
	}
	return "/dev/shm"
}

func mustOpen(t testing.TB, o Options) blk.Backend {
	t.Helper()
	b, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRawConformance(t *testing.T) {
	for _, tt := range []struct {
		name   string
		memory bool
		o      Options
	}{
		{"Auto", false, Options{}},
		{"AutoInMemory", true, Options{}},
		{"Inline", false, Options{Engine: EngineInline}},
		{"Pool", false, Options{Engine: EnginePool}},
		{"IOURing", false, Options{Engine: EngineIOURing}},
		{"IOURingInMemory", true, Options{Engine: EngineIOURing}},
		{"Direct", false, Options{Direct: true}},
		{"DirectPool", false, Options{Direct: true, Engine: EnginePool}},
		{"Limited", false, Options{IOPS: 1e6, BPS: 1e10}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := uringUsable(); tt.o.Engine == EngineIOURing && err != nil {
				t.Skip(err)
			}
			dir := t.TempDir()
			if tt.memory {
				dir = memoryDir(t)
			}
			blktest.TestBackend(t, func(t *testing.T, size int64) blk.Backend {
				o := tt.o
				o.Path = newFile(t, dir, size)
				b, err := Open(o)
				if err != nil && o.Direct && strings.Contains(err.Error(), "no direct I/O") {
					t.Skip(err)
				}
				if err != nil {
					t.Fatal(err)
				}
				return b
			})
		})
	}
}

func TestReadOnly(t *testing.T) {
	for _, e := range []Engine{EngineAuto, EnginePool, EngineInline} {
		b := mustOpen(t, Options{Path: newFile(t, t.TempDir(), 1<<20), ReadOnly: true, Engine: e})
		blktest.TestReadOnly(t, b)
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestLockExcludesWriters(t *testing.T) {
	path := newFile(t, t.TempDir(), 1<<20)
	rw := Options{Path: path}
	ro := Options{Path: path, ReadOnly: true}

	b := mustOpen(t, rw)
	for _, o := range []Options{rw, ro} {
		if _, err := Open(o); !errors.Is(err, ErrInUse) {
			t.Errorf("open of a disk that is written to: %v, want ErrInUse", err)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}

	r1, r2 := mustOpen(t, ro), mustOpen(t, ro)
	if _, err := Open(rw); !errors.Is(err, ErrInUse) {
		t.Errorf("open for writing of a disk with readers: %v, want ErrInUse", err)
	}
	_ = r1.Close()
	_ = r2.Close()
	_ = mustOpen(t, rw).Close()
}

func TestOpenMistakes(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		o    Options
		want string
	}{
		{Options{}, "no file"},
		{Options{Path: filepath.Join(dir, "none")}, "no such file"},
		{Options{Path: dir}, "disk " + dir},
		{Options{Path: "/dev/null"}, "neither a file nor a block device"},
		{Options{Path: newFile(t, dir, 512), Format: "vmdk"}, "vmdk"},
		{Options{Path: newFile(t, dir, 512), Engine: "magic"}, "magic"},
		{Options{Path: newFile(t, dir, 512), ID: strings.Repeat("x", 21)}, "longer than 20"},
		{Options{Path: newFile(t, dir, 512), IOPS: -1}, "below 0"},
	} {
		if _, err := Open(tt.o); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Open(%+v) = %v, want %q in it", tt.o, err, tt.want)
		}
	}
}

// TestOddSize: the last, partial sector reads with zeros behind it, and can be
// written.
func TestOddSize(t *testing.T) {
	for _, e := range []Engine{EngineAuto, EnginePool} {
		path := newFile(t, t.TempDir(), 0)
		content := bytes.Repeat([]byte{7}, 4096+100)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		b := mustOpen(t, Options{Path: path, Engine: e})
		if n := b.Info().Size; n != 4096+512 {
			t.Fatalf("size %d", n)
		}
		got := bytes.Repeat([]byte{0xee}, 4096+512)
		blktest.Do(t, b, &blk.Request{Op: blk.OpRead, Vec: [][]byte{got[:4200], got[4200:]}})
		want := append(bytes.Clone(content), make([]byte, 412)...)
		if !bytes.Equal(got, want) {
			t.Errorf("engine %q: the last sector reads otherwise", e)
		}
		blktest.Do(t, b, &blk.Request{Op: blk.OpWrite, Offset: 4096, Vec: [][]byte{want[:512]}})
		_ = b.Close()
		if p, err := os.ReadFile(path); err != nil || len(p) != 4608 || !bytes.Equal(p[4096:], want[:512]) {
			t.Errorf("engine %q: after the write the file has %d bytes, %v", e, len(p), err)
		}
	}
}

// TestShrunkFile: a file that somebody cut is an I/O error, not zeros.
func TestShrunkFile(t *testing.T) {
	for _, e := range []Engine{EngineAuto, EnginePool} {
		path := newFile(t, t.TempDir(), 1<<20)
		b := mustOpen(t, Options{Path: path, ReadOnly: true, Engine: e})
		if err := os.Truncate(path, 4096); err != nil {
			t.Fatal(err)
		}
		if err := blktest.Try(t, b, &blk.Request{Op: blk.OpRead, Offset: 8192, Vec: [][]byte{make([]byte, 4096)}}); err == nil {
			t.Errorf("engine %q: read behind the new end succeeded", e)
		}
		_ = b.Close()
	}
}

// TestFullMedium: where no space is left, the error is the request's.
func TestFullMedium(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small tmpfs needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=128k"); err != nil {
		t.Skipf("mount a small tmpfs: %v", err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	for _, e := range []Engine{EngineInline, EnginePool, EngineIOURing} {
		if e == EngineIOURing && uringUsable() != nil {
			continue
		}
		path := newFile(t, dir, 1<<20)
		b := mustOpen(t, Options{Path: path, Engine: e})
		big := make([]byte, 256<<10)
		err := blktest.Try(t, b, &blk.Request{Op: blk.OpWrite, Vec: [][]byte{big}})
		if !errors.Is(err, unix.ENOSPC) {
			t.Errorf("engine %q: write to a full medium: %v, want ENOSPC", e, err)
		}
		blktest.Do(t, b, &blk.Request{Op: blk.OpDiscard, Length: 1 << 20})
		blktest.Do(t, b, &blk.Request{Op: blk.OpWrite, Vec: [][]byte{big[:4096]}})
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
		_ = b.Close()
	}
}

func TestDiscardFreesBlocks(t *testing.T) {
	for _, e := range []Engine{EngineAuto, EnginePool} {
		path := newFile(t, t.TempDir(), 4<<20)
		b := mustOpen(t, Options{Path: path, Engine: e})
		blktest.Do(t, b, &blk.Request{Op: blk.OpWrite, Vec: [][]byte{bytes.Repeat([]byte{1}, 4<<20)}})
		blktest.Do(t, b, &blk.Request{Op: blk.OpFlush})
		before := blocks(t, path)
		blktest.Do(t, b, &blk.Request{Op: blk.OpDiscard, Offset: 1 << 20, Length: 2 << 20})
		if after := blocks(t, path); after > before/2+64 {
			t.Errorf("engine %q: a discard of half the disk left %d of %d blocks", e, after, before)
		}
		_ = b.Close()
	}
}

// TestSmallDiscards gives back every second 4 KiB of a disk, also where that is
// part of a cluster: its place on the host becomes free, and the rest stays.
func TestSmallDiscards(t *testing.T) {
	const size, piece = 1 << 20, 4096
	for _, format := range []Format{Raw, QCOW2} {
		for _, r := range []blk.Request{{Op: blk.OpDiscard}, {Op: blk.OpWriteZeroes, Unmap: true}, {Op: blk.OpWriteZeroes}} {
			path := filepath.Join(t.TempDir(), "disk")
			if err := Create(path, size, format); err != nil {
				t.Fatal(err)
			}
			b := mustOpen(t, Options{Path: path, Format: format})
			want := bytes.Repeat([]byte{0xa5}, size)
			blktest.Do(t, b, &blk.Request{Op: blk.OpWrite, Vec: [][]byte{want}})
			blktest.Do(t, b, &blk.Request{Op: blk.OpFlush})
			before := blocks(t, path)
			for off := piece; off < size; off += 2 * piece {
				q := r
				q.Offset, q.Length = int64(off), piece
				blktest.Do(t, b, &q)
				clear(want[off : off+piece])
			}
			blktest.Do(t, b, &blk.Request{Op: blk.OpFlush})
			freed := 512 * (before - blocks(t, path))
			if r.Op == blk.OpDiscard || r.Unmap {
				if freed < size/2-64<<10 || freed > size/2+64<<10 {
					t.Errorf("%s, %s: %d bytes of %d became free", format, r.Op, freed, size/2)
				}
			}
			if got := readAll(t, b); !bytes.Equal(got, want) {
				t.Errorf("%s, %s: read back otherwise", format, r.Op)
			}
			if n := b.Info().DiscardAlign; n > piece {
				t.Errorf("%s: the guest is told to discard %d bytes at least", format, n)
			}
			if err := b.Close(); err != nil {
				t.Error(err)
			}
			if format == QCOW2 {
				checkImage(t, path)
			}
		}
	}
}

// TestZeroesTakeNoPlace: to zero a part of a cluster that is not there makes
// none.
func TestZeroesTakeNoPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if err := Create(path, 8<<20, QCOW2); err != nil {
		t.Fatal(err)
	}
	b := mustOpen(t, Options{Path: path, Format: QCOW2})
	blktest.Do(t, b, &blk.Request{Op: blk.OpFlush})
	before := blocks(t, path)
	for off := int64(4096); off < 8<<20; off += 64 << 10 {
		blktest.Do(t, b, &blk.Request{Op: blk.OpWriteZeroes, Offset: off, Length: 4096, Unmap: off&(64<<10) == 0})
		blktest.Do(t, b, &blk.Request{Op: blk.OpDiscard, Offset: off, Length: 4096})
	}
	blktest.Do(t, b, &blk.Request{Op: blk.OpFlush})
	if after := blocks(t, path); after != before {
		t.Errorf("the image grew from %d to %d blocks", before, after)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

func blocks(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks
}

// TestLimitHolds measures a limit against the time that was really taken, so
// it holds on a busy machine too: no faster than 110 %; and how slow only
// against the charge itself, below.
func TestLimitHolds(t *testing.T) {
	const iops = 2000
	mem := blk.Inline(blk.NewMemory(make([]byte, 1<<20), false))
	b := Limit(mem, iops, 0)
	n := 0
	c, err := b.Open(context.Background(), 1, func(rs []*blk.Request) { n += len(rs) })
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	for time.Since(begin) < 500*time.Millisecond {
		c.Submit(&blk.Request{Op: blk.OpRead, Length: 512, Vec: [][]byte{make([]byte, 512)}})
		c.Kick()
	}
	if got := float64(n) / time.Since(begin).Seconds(); got > iops*1.10 {
		t.Errorf("%.0f requests a second with a limit of %d", got, iops)
	}
	_ = c.Close()
}

// TestChargeIsExact: over a minute of simulated time a limit of bytes is
// met within 5 % for requests smaller and larger than a burst.
func TestChargeIsExact(t *testing.T) {
	for _, size := range []int64{512, 64 << 10, 8 << 20} {
		const bps = 10 << 20
		l := newLimiter(bps)
		begin := time.Now()
		now, moved := begin, int64(0)
		for now.Sub(begin) < time.Minute {
			now = now.Add(charge(l, now, size))
			moved += size
		}
		got := float64(moved) / now.Sub(begin).Seconds()
		if got < bps*0.95 || got > bps*1.05 {
			t.Errorf("requests of %d bytes: %.0f bytes a second with a limit of %d", size, got, int64(bps))
		}
	}
}

// TestLimitEndsWithContext: what waits for a limit goes on when the device
// stops.
func TestLimitEndsWithContext(t *testing.T) {
	b := Limit(blk.Inline(blk.NewMemory(make([]byte, 1<<20), false)), 1, 0)
	ctx, cancel := context.WithCancel(context.Background())
	n := 0
	c, err := b.Open(ctx, 8, func(rs []*blk.Request) { n += len(rs) })
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	for range 8 {
		c.Submit(&blk.Request{Op: blk.OpFlush})
	}
	if err := c.Close(); err != nil || n != 8 {
		t.Errorf("%d of 8 done, %v", n, err)
	}
}

// TestFailedFlushStays: what a failed flush lost is not forgotten by the next.
func TestFailedFlushStays(t *testing.T) {
	for _, e := range []Engine{EngineAuto, EnginePool} {
		b := mustOpen(t, Options{Path: newFile(t, t.TempDir(), 1<<20), Engine: e})
		blktest.Do(t, b, &blk.Request{Op: blk.OpFlush})
		_ = rawOf(t, b).flushed(unix.EIO)
		for range 2 {
			if err := blktest.Try(t, b, &blk.Request{Op: blk.OpFlush}); !errors.Is(err, unix.EIO) {
				t.Errorf("engine %q: flush after a failed one: %v", e, err)
			}
		}
		_ = b.Close()
	}
}

// rawOf is the file inside a back end.
func rawOf(t *testing.T, b blk.Backend) *raw {
	t.Helper()
	switch b := b.(type) {
	case uringBackend:
		return b.raw
	case interface{ Store() blk.Store }:
		return b.Store().(*raw)
	}
	t.Fatalf("no raw file in a %T", b)
	return nil
}
