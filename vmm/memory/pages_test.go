package memory

import (
	"errors"
	"runtime"
	"syscall"
	"testing"
)

func TestMemoryOfHugePages(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("huge pages are Linux's alone")
	}
	for _, pages := range []Pages{Usual, Transparent, Huge2M} {
		g, err := NewOf(4<<20, pages)
		if pages == Huge2M && errors.Is(err, syscall.ENOMEM) {
			t.Log("no huge pages are reserved here")
			continue
		}
		if err != nil {
			t.Fatalf("pages %d: %v", pages, err)
		}
		if err := g.WriteAt([]byte{1, 2}, 0x1ffffe); err != nil || g.Size() != 4<<20 {
			t.Errorf("pages %d: %v, size %d", pages, err, g.Size())
		}
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := NewOf(3<<20, Huge2M); err == nil {
		t.Error("a size that is no multiple of 2 MiB")
	}
}
