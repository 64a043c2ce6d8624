package control

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func openTestDir(t *testing.T) *Dir {
	t.Helper()
	d, err := OpenDir(filepath.Join(t.TempDir(), "run"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func claim(t *testing.T, d *Dir, name string) *Claim {
	t.Helper()
	c, err := d.Claim(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Update(func(r *Record) { r.State = StateRunning }); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRunDirectoryIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run")
	if err := os.Mkdir(path, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDir(path); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("mode %v, %v; want 0700", info.Mode(), err)
	}
}

func TestNameOfALivingMachineIsTaken(t *testing.T) {
	d := openTestDir(t)
	c := claim(t, d, "web")
	var inUse *InUseError
	if _, err := d.Claim("web"); !errors.As(err, &inUse) || inUse.PID != os.Getpid() {
		t.Fatalf("second claim: %v; want InUseError", err)
	}
	if err := d.Remove("web"); !errors.As(err, &inUse) {
		t.Fatalf("remove: %v; want InUseError", err)
	}
	if err := c.Release(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Claim("web"); err != nil {
		t.Fatalf("claim after release: %v", err)
	}
}

func TestBadNames(t *testing.T) {
	d := openTestDir(t)
	for _, name := range []string{"", ".", "..", "a/b", "-x", "a b", strings.Repeat("x", 64), "ü"} {
		if _, err := d.Claim(name); err == nil {
			t.Errorf("claimed %q", name)
		}
		if _, err := d.Find(name); err == nil {
			t.Errorf("found %q", name)
		}
	}
}

func TestEndedMachineKeepsItsRecord(t *testing.T) {
	d := openTestDir(t)
	c := claim(t, d, "job")
	status, now := 3, time.Now()
	if err := c.Update(func(r *Record) { r.State, r.ExitStatus, r.Ended = StateExited, &status, &now }); err != nil {
		t.Fatal(err)
	}
	if err := c.Release(); err != nil {
		t.Fatal(err)
	}
	r, err := d.Find("job")
	if err != nil || r.State != StateExited || r.ExitStatus == nil || *r.ExitStatus != 3 {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := d.Remove("job"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Find("job"); !errors.Is(err, ErrNoMachine) {
		t.Fatalf("after rm: %v", err)
	}
	if entries, _ := os.ReadDir(d.Path()); len(entries) != 0 {
		t.Fatalf("left: %v", entries)
	}
}

// A process that is killed leaves a record that says "running" and a lock that
// nobody holds. The child of this test is such a process.
func TestKilledMachineIsDeadAndLeavesNothingBehind(t *testing.T) {
	if os.Getenv("CONTROL_TEST_CHILD") != "" {
		d, err := OpenDir(os.Getenv("CONTROL_TEST_CHILD"))
		if err != nil {
			t.Fatal(err)
		}
		c := claim(t, d, "web")
		left := filepath.Join(os.Getenv("CONTROL_TEST_CHILD"), "..", "overlay")
		if err := c.Update(func(r *Record) { r.Leftovers = []string{left} }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
	}
	d := openTestDir(t)
	left := filepath.Join(d.Path(), "..", "overlay")
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledMachineIsDead")
	cmd.Env = append(os.Environ(), "CONTROL_TEST_CHILD="+d.Path())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for {
		if r, err := d.Find("web"); err == nil && r.Leftovers != nil {
			if r.State != StateRunning {
				t.Fatalf("a living machine is %s", r.State)
			}
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	r, err := d.Find("web")
	if err != nil || r.State != StateDead || r.Reason == "" {
		t.Fatalf("%+v, %v; want dead with a reason", r, err)
	}
	c, err := d.Claim("web")
	if err != nil {
		t.Fatalf("claim of a dead machine's name: %v", err)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("leftover is still there: %v", err)
	}
	if err := c.Forget(); err != nil {
		t.Fatal(err)
	}
}

func TestMachineOfAnotherBootIsDead(t *testing.T) {
	d := openTestDir(t)
	c := claim(t, d, "old")
	defer c.Release()
	b, err := os.ReadFile(c.Path(recordFile))
	if err != nil {
		t.Fatal(err)
	}
	s := strings.Replace(string(b), bootID(), "another-boot", 1)
	if err := os.WriteFile(c.Path(recordFile), []byte(s), 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := d.Find("old"); err != nil || r.State != StateDead {
		t.Fatalf("%+v, %v; want dead", r, err)
	}
}

func TestDamagedRecordDoesNotHideTheOthers(t *testing.T) {
	d := openTestDir(t)
	defer claim(t, d, "good").Release()
	bad := claim(t, d, "bad")
	if err := os.WriteFile(bad.Path(recordFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	_ = bad.Release()
	list, err := d.List()
	if err != nil || len(list) != 2 || list[0].State != StateDead || list[1].State != StateRunning {
		t.Fatalf("%+v, %v", list, err)
	}
	if _, err := d.Claim("bad"); err != nil {
		t.Fatalf("claim over a damaged record: %v", err)
	}
}

func BenchmarkList50(b *testing.B) {
	d, err := OpenDir(filepath.Join(b.TempDir(), "run"))
	if err != nil {
		b.Fatal(err)
	}
	for i := range 50 {
		c, err := d.Claim("m" + string(rune('a'+i/26)) + string(rune('a'+i%26)))
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Update(func(r *Record) { r.State = StateRunning }); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if list, err := d.List(); err != nil || len(list) != 50 {
			b.Fatal(len(list), err)
		}
	}
}

func TestWaitTellsHowAMachineEnded(t *testing.T) {
	d := openTestDir(t)
	c, err := d.Claim("web")
	if err != nil {
		t.Fatal(err)
	}
	status := 7
	if err := c.Update(func(r *Record) { r.State = StateRunning }); err != nil {
		t.Fatal(err)
	}
	type answer struct {
		r   Record
		err error
	}
	got := make(chan answer)
	go func() {
		r, err := d.Wait(t.Context(), "web")
		got <- answer{r, err}
	}()
	select {
	case a := <-got:
		t.Fatalf("returned while the machine lives: %+v", a)
	case <-time.After(20 * time.Millisecond):
	}
	if err := c.Update(func(r *Record) { r.State, r.ExitStatus = StateExited, &status }); err != nil {
		t.Fatal(err)
	}
	if err := c.Release(); err != nil {
		t.Fatal(err)
	}
	if a := <-got; a.err != nil || a.r.ExitStatus == nil || *a.r.ExitStatus != 7 {
		t.Fatalf("%+v", a)
	}
	if r, err := d.Wait(t.Context(), "web"); err != nil || *r.ExitStatus != 7 {
		t.Fatalf("wait for one that has ended: %+v, %v", r, err)
	}
	if _, err := d.Wait(t.Context(), "other"); !errors.Is(err, ErrNoMachine) {
		t.Fatalf("wait for one that never was: %v", err)
	}
}

func TestSweepRemovesWhatTheDeadLeave(t *testing.T) {
	d := openTestDir(t)
	leftover, served := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	ln, err := net.Listen("unix", served)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := os.WriteFile(leftover, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := d.Claim("web")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Update(func(r *Record) { r.State, r.Leftovers = StateRunning, []string{leftover, served} }); err != nil {
		t.Fatal(err)
	}
	if err := d.Sweep(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(leftover); err != nil {
		t.Fatal("swept what belongs to a living machine")
	}
	c.lock.Close() // as when its process is killed
	if err := d.Sweep(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(leftover); err == nil {
		t.Error("the leftover is still there")
	}
	if _, err := os.Stat(served); err != nil {
		t.Error("a socket that another process serves was removed")
	}
	r, err := d.Find("web")
	if err != nil || r.State != StateDead || r.Ended == nil || r.Reason == "" {
		t.Errorf("%+v, %v", r, err)
	}
}

// A process that is killed between taking its name and writing its record
// leaves a folder, which rm takes away, and after a while the next run.
func TestKilledBeforeItsRecordLeavesNothing(t *testing.T) {
	d := openTestDir(t)
	for _, name := range []string{"young", "old", "taken", "damaged"} {
		c, err := d.Claim(name)
		if err != nil {
			t.Fatal(err)
		}
		if name == "taken" {
			defer c.lock.Close()
		} else {
			c.lock.Close() // as when its process is killed
		}
	}
	long := time.Now().Add(-time.Hour)
	for _, name := range []string{"old", "taken"} {
		if err := os.Chtimes(d.Folder(name), long, long); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Sweep(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"young": true, "old": false, "taken": true, "damaged": true} {
		if d.hasFolder(name) != want {
			t.Errorf("folder of %q: %v after a sweep", name, !want)
		}
	}
	if err := os.WriteFile(filepath.Join(d.Folder("damaged"), recordFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove("taken"); !errors.Is(err, ErrNoMachine) || !d.hasFolder("taken") {
		t.Errorf("remove of one that begins: %v", err)
	}
	if err := errors.Join(d.Remove("young"), d.Remove("damaged")); err != nil || d.hasFolder("young") || d.hasFolder("damaged") {
		t.Errorf("remove: %v", err)
	}
	if err := d.Remove("none"); !errors.Is(err, ErrNoMachine) {
		t.Errorf("remove of one that never was: %v", err)
	}
}

func TestNamesAreTakenWhileOthersLook(t *testing.T) {
	d := openTestDir(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = d.List()
			}
		}
	})
	for range 100 {
		c, err := d.Claim("web")
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Update(func(r *Record) { r.State = StateRunning }); err != nil {
			t.Fatal(err)
		}
		c.lock.Close()
	}
	close(stop)
	wg.Wait()
}
