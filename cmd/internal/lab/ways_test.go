package lab

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
)

// The table counts what the page says: an exit for each access, none for a
// notification by ioeventfd or a look at memory, one for a batch.
func TestExitsAreCountedSideBySide(t *testing.T) {
	l, err := Find("9")
	if err != nil {
		t.Fatal(err)
	}
	program, err := l.File("demo.bin")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := l.Runner()(t.Context(), program, Options{Accel: acceltest.Of(t, acceltest.Soft), Limit: time.Minute}, &b); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")[2:]
	want := [][2]string{{"256", "256"}, {"256", "256"}, {"0", "256"}, {"0", "0"}, {"64", "64"}, {"0", "64"}, {"0", "1"}}
	if len(lines) != len(want) {
		t.Fatalf("%d lines:\n%s", len(lines), b.String())
	}
	for i, line := range lines {
		f := strings.Fields(line)
		if n := len(f); f[n-4] != want[i][0] || f[n-2] != want[i][1] {
			t.Errorf("%q: want %s and %s exits", line, want[i][0], want[i][1])
		}
	}
}

func TestOwnProgramOfLab9IsRunBothWays(t *testing.T) {
	l, err := Find("9")
	if err != nil {
		t.Fatal(err)
	}
	program, err := l.File("solution.bin")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := l.Runner()(t.Context(), program, Options{Accel: acceltest.Of(t, acceltest.Soft), Limit: acceltest.Limit(300 * time.Millisecond)}, &b); err != nil {
		t.Fatal(err)
	}
	if got := b.String(); strings.Count(got, "one for all") != 2 || !strings.Contains(got, "--notify exit: the console sent") {
		t.Error(got)
	}
}

// Lab 12's table: every clone has its own name, and none prepares itself again.
func TestClonesOfLab12(t *testing.T) {
	l, err := Find("12")
	if err != nil {
		t.Fatal(err)
	}
	program, err := l.File("demo.bin")
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := l.Runner()(t.Context(), program, Options{Accel: acceltest.Of(t, acceltest.Soft), Limit: time.Minute}, &b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ready after", `clone A: "AV\n" after`, `clone B: "BV\n" after`, `clone C: "CV\n" after`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in:\n%s", want, b.String())
		}
	}
}

// The later labs are the same on KVM, where there are two who run at a time.
func TestGuestSolutionsOnKVM(t *testing.T) {
	acceltest.Only(t, acceltest.KVM, "other tests do the same with the software CPU")
	for _, number := range []string{"9", "11", "12"} {
		l, err := Find(number)
		if err != nil {
			t.Fatal(err)
		}
		program, err := l.File("solution.bin")
		if err != nil {
			t.Fatal(err)
		}
		broken, err := l.Check(t.Context(), program, Options{Accel: "kvm", Limit: time.Minute})
		if err != nil || len(broken) > 0 {
			t.Errorf("lab %s: %q, %v", number, broken, err)
		}
	}
}
