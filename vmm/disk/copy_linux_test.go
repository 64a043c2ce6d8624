package disk

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestCopyKeepsDataAndHoles(t *testing.T) {
	dir := t.TempDir()
	src, dst := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	f, err := os.Create(src)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(64 << 20); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{0, 5 << 20, 64<<20 - 7} {
		if _, err := f.WriteAt([]byte("content"), at); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	if err := Copy(dst, src); err != nil {
		t.Fatal(err)
	}
	want, _ := os.ReadFile(src)
	got, err := os.ReadFile(dst)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("the copy differs (%v)", err)
	}
	info, err := os.Stat(dst)
	if err != nil {
		t.Fatal(err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Blocks*512 > 8<<20 {
		t.Errorf("a copy of a few bytes takes %d on the disk", st.Blocks*512)
	}
	if err := Copy(dst, src); err == nil {
		t.Error("overwrote a file")
	}
}
