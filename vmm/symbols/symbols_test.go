package symbols

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const systemMap = `ffffffff81000000 T _stext
ffffffff81000000 T startup_64
ffffffff81000100 t early_setup
ffffffff81000200 D data
ffffffff81000300 W weak

`

func TestSystemMap(t *testing.T) {
	table, err := Read(strings.NewReader(systemMap))
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[uint64]string{0xffffffff81000000: "_stext", 0xffffffff81000010: "_stext+0x10", 0xffffffff81000100: "early_setup",
		0xffffffff81000250: "early_setup+0x150", 0xffffffff81000304: "weak+0x4", 0xffffffff80ffffff: "", 0xffffffff91000000: "", 0: ""} {
		if got := table.Name(addr); got != want {
			t.Errorf("%#x: %q, want %q", addr, got, want)
		}
	}
	if a, ok := table.Addr("early_setup"); !ok || a != 0xffffffff81000100 {
		t.Errorf("early_setup at %#x, %v", a, ok)
	}
}

// This test's own binary is an ELF file with symbols.
func TestELF(t *testing.T) {
	path, err := os.Executable()
	if err != nil {
		t.Skip(err)
	}
	table, err := Open(path)
	if err != nil {
		t.Skip(err) // built with -s
	}
	a, ok := table.Addr("runtime.main")
	if !ok || table.Name(a) != "runtime.main" || table.Name(a+4) != "runtime.main+0x4" {
		t.Errorf("%#x, %v: %q %q", a, ok, table.Name(a), table.Name(a+4))
	}
}

func TestWhatIsNoTable(t *testing.T) {
	for name, text := range map[string]string{"empty": "", "text": "hello world, how are you\n", "numbers": "1 2 3\n", "no functions": "10 D data\n"} {
		if _, err := Read(strings.NewReader(text)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Error("an absent file was accepted")
	}
	var none *Table
	if none.Name(1) != "" || none.Len() != 0 {
		t.Error("no table knows something")
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(systemMap))
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if table, err := Read(bytes.NewReader(b)); err == nil {
			table.Name(0xffffffff81000000)
		}
	})
}
