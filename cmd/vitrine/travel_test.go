package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
)

// TestEmbeddedGuestGoesBack records a deterministic run, and goes to places of
// it in an order that needs snapshots and new beginnings: each shows the same
// each time, byte for byte.
func TestEmbeddedGuestGoesBack(t *testing.T) {
	acceltest.Only(t, acceltest.Soft, deterministic)
	t.Setenv("VITRINE_CACHE", testCache)
	t.Setenv("VITRINE_STATE", t.TempDir())
	dir := t.TempDir()
	file, data := filepath.Join(dir, "r.vt"), filepath.Join(dir, "data")
	if err := os.WriteFile(data, bytes.Repeat([]byte("block "), 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	status, o, e := vitrine(strings.NewReader(""), "record", "--deterministic", "--cpus", "2", "--disk", data+",ro", "--output", file,
		"--", "sh", "-c", "head -c 5 /dev/vda; head -c 4 /dev/urandom >/dev/null")
	if status != 0 || !strings.HasPrefix(o, "block") {
		t.Fatalf("record: %d %q %q", status, o, e)
	}
	status, o, e = vitrine(nil, "replay", "--check", file)
	if status != 0 || !strings.Contains(o, "executed again: the same ") {
		t.Fatalf("check: %d %q %q", status, o, e)
	}
	// Each place is looked at twice; in between are others, before and behind.
	// The list of devices, which ends with the disk, is a mark in the output.
	const look = "d\nw\nx cpu\nx cpu cpu=1\nx pagetable 0xffffffff81000000\nd\n"
	places := []string{"gi 17000001", "g 400", "gi 3", "gi 9000000", "g 1000000", "gi 8999999"}
	var script strings.Builder
	for range 2 {
		for _, p := range places {
			script.WriteString(p + "\n" + look)
		}
	}
	status, o, e = vitrine(strings.NewReader(script.String()+"gi 9000000\ni 5\nib 5\n"+look+"q\n"), "replay", file)
	parts := strings.Split(o, "vda\n")
	if status != 0 || len(parts) != 2*(2*len(places)+1)+1 {
		t.Fatalf("replay: %d %q, %d looks:\n%s", status, e, len(parts), o)
	}
	shown := func(place int) string { return parts[1+2*place] }
	for i, p := range places {
		if a, b := shown(i), shown(i+len(places)); a != b || !strings.Contains(a, "vcpu 0: ") || !strings.Contains(a, "cr3 0x") {
			t.Errorf("%s shows\n%s\nand then\n%s", p, a, b)
		}
	}
	if a, b := shown(3), shown(2*len(places)); a != b {
		t.Errorf("five instructions on and back:\n%s\nand before\n%s", b, a)
	}

	if err := os.WriteFile(data, []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, o, _ := vitrine(strings.NewReader("i\nq\n"), "replay", file); status != 0 || !strings.Contains(o, "has changed since the recording") {
		t.Errorf("with another disk: %d %q", status, o)
	}
}

// TestRecordingsAreHarmless: what a recording says of its machine makes nobody's
// files others.
func TestRecordingsAreHarmless(t *testing.T) {
	file := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(file, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	kernel := tinyKernel(t, powerOff)
	for _, f := range []givenFlag{{"console", file}, {"core", file}, {"state", filepath.Dir(file)}, {"share", filepath.Dir(file) + ":x"}, {"net", "user"}, {"nonsense", "x"}} {
		run := &recordedRun{Version: recordedRunVersion, Flags: []givenFlag{{"deterministic", "true"}, {"kernel", kernel}, f}}
		if _, err := run.options(); err == nil {
			t.Errorf("--%s was taken", f.Name)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "kept" {
		t.Errorf("the file is %q, %v", b, err)
	}
	run := &recordedRun{Version: recordedRunVersion, Flags: []givenFlag{{"deterministic", "true"}, {"kernel", kernel}, {"disk", file + ",ro"}, {"console", os.DevNull}}}
	if _, err := run.options(); err != nil {
		t.Error(err)
	}
	// Disks and persistent memory are only read, whatever the flags say.
	run.Flags = []givenFlag{{"deterministic", "true"}, {"kernel", kernel}, {"disk", file}, {"pmem", file}}
	o, err := run.options()
	if err != nil || o.disks[0].Over == nil || o.pmems[0].over == nil {
		t.Errorf("%+v, %v: written to", o, err)
	}
}

// writtenRun records a deterministic run that writes to a disk and to persistent
// memory, and returns the recording and what both files had before.
func writtenRun(t *testing.T) (recording, disk, pmem string, before [2][]byte) {
	t.Helper()
	t.Setenv("VITRINE_CACHE", testCache)
	t.Setenv("VITRINE_STATE", t.TempDir())
	dir := t.TempDir()
	recording, disk, pmem = filepath.Join(dir, "r.vt"), filepath.Join(dir, "disk"), filepath.Join(dir, "pmem")
	before = [2][]byte{bytes.Repeat([]byte("old sector 16 b\n"), 4096), bytes.Repeat([]byte("old memory, 16b\n"), 2<<16)}
	for i, path := range []string{disk, pmem} {
		if err := os.WriteFile(path, before[i], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	status, o, e := vitrine(strings.NewReader(""), "record", "--deterministic", "--disk", disk, "--pmem", pmem, "--output", recording, "--", "sh", "-c",
		"echo new sector | dd of=/dev/vda bs=512 seek=20 conv=notrunc 2>/dev/null; echo new memory | dd of=/dev/pmem1 bs=512 seek=9 conv=notrunc 2>/dev/null; sync; dd if=/dev/vda bs=512 skip=20 count=1 2>/dev/null | head -c 10")
	if status != 0 || o != "new sector" {
		t.Fatalf("record: %d %q %q", status, o, e)
	}
	return recording, disk, pmem, before
}

// TestEmbeddedGuestGoesBackBeforeItWrote: before the guest writes to a disk its
// sector is old, afterwards it is new, in any order; and neither the disk nor
// the persistent memory on the host changes by looking.
func TestEmbeddedGuestGoesBackBeforeItWrote(t *testing.T) {
	acceltest.Only(t, acceltest.Soft, deterministic)
	recording, disk, pmem, before := writtenRun(t)
	var after [2][]byte
	for i, path := range []string{disk, pmem} {
		b, err := os.ReadFile(path)
		if err != nil || bytes.Equal(b, before[i]) {
			t.Fatalf("%s was not written to, %v", path, err)
		}
		after[i] = b
	}
	check := func(what string) {
		t.Helper()
		if status, o, e := vitrine(nil, "replay", "--check", recording); status != 0 || !strings.Contains(o, "executed again: the same ") {
			t.Fatalf("check with the files as they were %s: %d %q %q", what, status, o, e)
		}
		const end = "g 1h\n"
		status, o, e := vitrine(strings.NewReader("v vda 20\n"+end+"v vda 20\ngi 9000000\nv vda 20\n"+end+"v vda 20\nv vda 999\nv vdz 0\nv\nq\n"), "replay", recording)
		var seen []string
		for line := range strings.Lines(o) {
			if _, text, ok := strings.Cut(line, "00000000  "); ok {
				seen = append(seen, text[strings.Index(text, "|"):])
			}
		}
		const old = "|old sector 16 b.|\n"
		if status != 0 || len(seen) != 4 || seen[0] != old || !strings.HasPrefix(seen[1], "|new sector.") || seen[2] != old || seen[3] != seen[1] {
			t.Errorf("with the files as they were %s: %d %q; the sector was %q\n%s", what, status, e, seen, o)
		}
		for _, text := range []string{"vda has 128 sectors", `no disk "vdz"`, "v DISK SECTOR"} {
			if !strings.Contains(o, text) {
				t.Errorf("no %q in\n%s", text, o)
			}
		}
	}
	check("after the run")
	for i, path := range []string{disk, pmem} {
		if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, after[i]) {
			t.Errorf("%s changed, %v", path, err)
		}
		if err := os.WriteFile(path, before[i], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check("before it")
	if err := os.WriteFile(pmem, after[0], 0o600); err != nil {
		t.Fatal(err)
	}
	if status, o, _ := vitrine(strings.NewReader("i\nq\n"), "replay", recording); status != 0 || !strings.Contains(o, pmem+" has changed since the recording") {
		t.Errorf("with other persistent memory: %d %q", status, o)
	}
}

func TestOnlyDeterministicRecordingsGoBack(t *testing.T) {
	acceltest.Only(t, acceltest.Soft, deterministic)
	t.Setenv("VITRINE_STATE", t.TempDir())
	dir := t.TempDir()
	plain, det := filepath.Join(dir, "plain.vt"), filepath.Join(dir, "det.vt")
	args := append(watched(t, "record", acceltest.Soft, out(0x3f8, 'H'), powerOff, forever), "--output", plain)
	if status, _, e := vitrine(nil, args...); status != 0 {
		t.Fatal(e)
	}
	status, o, _ := vitrine(strings.NewReader("w\ni\nib 3\ngi 1\nx cpu\nn\ns COM1\nq\n"), "replay", plain)
	if status != 0 || strings.Count(o, "only a recording made with --deterministic") != 5 || !strings.Contains(o, `"lcr"`) {
		t.Errorf("%d %s", status, o)
	}

	disk := filepath.Join(dir, "disk")
	if err := os.WriteFile(disk, make([]byte, 1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
	args = []string{"record", "--deterministic", "--memory", "16M", "--kernel", tinyKernel(t, out(0x3f8, 'H'), powerOff, forever), "--disk", disk, "--output", det}
	if status, _, e := vitrine(strings.NewReader("typed"), args...); status != 0 {
		t.Fatal(e)
	}
	if status, o, _ := vitrine(strings.NewReader("i\nq\n"), "replay", det); status != 0 || !strings.Contains(o, "instruction 1, ") {
		t.Errorf("a disk that could be written to: %d %s", status, o)
	}
	args = append(args[:len(args)-4], "--output", det)
	if status, _, e := vitrine(strings.NewReader("typed"), args...); status != 0 {
		t.Fatal(e)
	}
	status, o, _ = vitrine(strings.NewReader("w\ni 2\ni 1000\nib 1000\ngi 2\nx cpu\nx memory 0x100000\nx cpu cpu=9\nx memory here\ngi many\nq\n"), "replay", det)
	for _, want := range []string{"instruction 0, ", "instruction 2, ", "before its last instruction: the machine has ended: power-off",
		"rip 000000000010", "0000000000100000  7f 45 4c 46", "no vcpu 9", `"here" is neither`, `"many" is not a number`} {
		if status != 0 || !strings.Contains(o, want) {
			t.Errorf("no %q in %d\n%s", want, status, o)
		}
	}
}
