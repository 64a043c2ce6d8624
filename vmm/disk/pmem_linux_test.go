package disk

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

func TestPMEM(t *testing.T) {
	path := newFile(t, t.TempDir(), 4<<20)
	for _, readOnly := range []bool{false, true} {
		p, err := OpenPMEM(path, readOnly)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := OpenPMEM(path, false); !errors.Is(err, ErrInUse) {
			t.Errorf("opened twice: %v", err)
		}
		g := memory.NewEmpty()
		if err := p.AddTo(g, 1<<32); err != nil {
			t.Fatal(err)
		}
		data := bytes.Repeat([]byte{3}, 100)
		if readOnly {
			data = bytes.Repeat([]byte{9}, 100)
		}
		if err := g.WriteAt(data, 1<<32+4000); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(p.Flush(), g.Close(), p.Close()); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || len(got) != 4<<20 || !bytes.Equal(got[4000:4100], bytes.Repeat([]byte{3}, 100)) {
			t.Errorf("read-only %v: the file has something else, %v", readOnly, err)
		}
	}
	for _, n := range []int64{0, 4096, 3 << 20} {
		if _, err := OpenPMEM(newFile(t, t.TempDir(), n), false); err == nil || !strings.Contains(err.Error(), "truncate") {
			t.Errorf("a file of %d bytes: %v", n, err)
		}
	}
	if _, err := OpenPMEM("/dev/null", false); err == nil {
		t.Error("a device node is persistent memory")
	}
}
