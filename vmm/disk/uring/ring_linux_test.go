package uring

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

func newRing(t *testing.T, n int) *Ring {
	t.Helper()
	r, err := New(n)
	if err != nil {
		t.Skipf("no io_uring on this host: %v", err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func TestNops(t *testing.T) {
	r := newRing(t, 4)
	for round := range uint64(1000) {
		for i := range uint64(4) {
			if !r.Push(&Op{Code: OpNop, Data: round<<8 | i}) {
				t.Fatal("the queue is full too early")
			}
		}
		if r.Push(&Op{Code: OpNop}) {
			t.Fatal("a full queue takes more")
		}
		if err := r.Submit(); err != nil {
			t.Fatal(err)
		}
		for i := range uint64(4) {
			if c, ok := r.Reap(); !ok || c.Res != 0 || c.Data != round<<8|i {
				t.Fatalf("completion %+v, %v", c, ok)
			}
		}
		if c, ok := r.Reap(); ok {
			t.Fatalf("completion of nothing: %+v", c)
		}
	}
}

// TestWait: a completion wakes who waits, unless muted.
func TestWait(t *testing.T) {
	r := newRing(t, 4)
	for _, muted := range []bool{false, true} {
		r.Mute(muted)
		r.Push(&Op{Code: OpNop})
		if err := r.Submit(); err != nil {
			t.Fatal(err)
		}
		if muted {
			if err := r.Wake(); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Wait(); err != nil {
			t.Fatal(err)
		}
		if _, ok := r.Reap(); !ok {
			t.Error("no completion after a wait")
		}
	}
}

func TestReadAndErrors(t *testing.T) {
	r := newRing(t, 4)
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 10)
	one := func(o Op) int32 {
		t.Helper()
		r.Push(&o)
		if err := r.Submit(); err != nil {
			t.Fatal(err)
		}
		for {
			if c, ok := r.Reap(); ok {
				return c.Res
			}
			if err := r.Wait(); err != nil {
				t.Fatal(err)
			}
		}
	}
	read := Op{Code: OpRead, FD: int32(f.Fd()), Addr: uint64(memory.HostAddr(b)), Len: 10}
	if n := one(read); n != 5 || string(b[:5]) != "hello" {
		t.Errorf("read %d bytes: %q", n, b)
	}
	read.Off = 5
	if n := one(read); n != 0 {
		t.Errorf("read at the end: %d", n)
	}
	read.FD = -1
	if n := one(read); n != -int32(unix.EBADF) {
		t.Errorf("read of no file: %d", n)
	}
	if n := one(Op{Code: OpFsync, FD: int32(f.Fd()), Flags: FsyncDatasync}); n != 0 {
		t.Errorf("fdatasync: %d", n)
	}
}

func TestSizes(t *testing.T) {
	for _, n := range []int{-1, 0, 5000} {
		if r, err := New(n); err == nil {
			_ = r.Close()
			t.Errorf("a ring of %d entries", n)
		}
	}
}
