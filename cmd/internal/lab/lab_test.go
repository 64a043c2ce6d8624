package lab

import (
	"io/fs"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/docs/labs"
	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
)

// anyAccel are the options for programs that run with any accelerator.
func anyAccel(t testing.TB) Options {
	t.Helper()
	return Options{Accel: acceltest.Of(t, acceltest.Soft), Limit: acceltest.Limit(300 * time.Millisecond)}
}

// expected is what expect.txt in a lab's folder says: of the demonstration, what
// it sends, quoted as in Go; of the exercise as given and of each program that
// is wrong on purpose, what its check must say.
func expected(t *testing.T, l Lab) map[string]string {
	t.Helper()
	b, err := l.File("expect.txt")
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[string]string)
	for line := range strings.Lines(string(b)) {
		name, text, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok || text == "" {
			t.Fatalf("%s/expect.txt: %q", l.Folder, line)
		}
		want[name] = text
	}
	return want
}

func TestWrongProgramsAreDiagnosed(t *testing.T) {
	for _, l := range All() {
		entries, err := fs.ReadDir(labs.Files, l.Folder)
		if err != nil {
			t.Fatal(err)
		}
		want := expected(t, l)
		for _, e := range entries {
			name, isProgram := strings.CutSuffix(e.Name(), l.Made())
			if name != "exercise" && !strings.HasPrefix(name, "wrong-") || !isProgram {
				continue
			}
			t.Run(l.Folder+"/"+name, func(t *testing.T) {
				t.Parallel()
				program, err := l.File(e.Name())
				if err != nil {
					t.Fatal(err)
				}
				broken, err := l.Check(t.Context(), program, anyAccel(t))
				if err != nil {
					t.Fatal(err)
				}
				if got := strings.Join(broken, "\n"); want[name] == "" || !strings.Contains(got, want[name]) {
					t.Errorf("want %q in:\n%s", want[name], got)
				}
			})
		}
	}
}

func TestSolutionsAreRight(t *testing.T) {
	o := anyAccel(t)
	o.Limit = time.Minute // not waited for
	for _, l := range All() {
		program, err := l.File("solution" + l.Made())
		if err != nil {
			t.Fatal(err)
		}
		broken, err := l.Check(t.Context(), program, o)
		if err != nil || len(broken) > 0 {
			t.Errorf("lab %d: %q, %v", l.Number, broken, err)
		}
	}
}

// TestGuestSolutionsUnderKVM: what is right on the software CPU is right under
// KVM.
func TestGuestSolutionsUnderKVM(t *testing.T) {
	acceltest.Only(t, acceltest.KVM, "other tests do the same with the software CPU")
	for _, l := range All() {
		if l.Made() != ".bin" && l.Made() != ".go" || l.Folder == bootFolder {
			continue
		}
		program, err := l.File("solution" + l.Made())
		if err != nil {
			t.Fatal(err)
		}
		broken, err := l.Check(t.Context(), program, Options{Accel: "kvm", Limit: 20 * time.Second})
		if err != nil || len(broken) > 0 {
			t.Errorf("lab %d: %q, %v", l.Number, broken, err)
		}
	}
}

// TestGuestLoaderUnderKVM is lab 8 without its Linux, which takes long where the
// host emulates guest kernels.
func TestGuestLoaderUnderKVM(t *testing.T) {
	acceltest.Only(t, acceltest.KVM, "other tests do the same with the software CPU")
	program, err := labs.Files.ReadFile(bootFolder + "/solution.bin")
	if err != nil {
		t.Fatal(err)
	}
	img, err := smallImage(2)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Run(t.Context(), program, loaderStart(img, []byte("a RAM disk"), guestMost), Options{Accel: "kvm", Limit: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if broken := r.judgeLoader(img); broken != "" || r.Output != "console=ttyS0 panic=-1\n" {
		t.Errorf("%s; it said %q", broken, r.Output)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestDemosSayWhatTheirPagesTell(t *testing.T) {
	o := anyAccel(t)
	o.Limit = 10 * time.Second
	for _, l := range All() {
		if l.Made() != ".bin" {
			continue // no program
		}
		want, err := strconv.Unquote(expected(t, l)["demo"])
		if err != nil {
			t.Fatal(err)
		}
		program, err := l.File("demo.bin")
		if err != nil {
			t.Fatal(err)
		}
		r, err := Run(t.Context(), program, l.Demo, o)
		if err != nil {
			t.Fatal(err)
		}
		if r.Output != want || !r.Halted {
			t.Errorf("lab %d: %q, halted %v: %s", l.Number, r.Output, r.Halted, r.Why)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestLabsAreWhole(t *testing.T) {
	for _, l := range All() {
		for _, name := range []string{"README.md", "README.ko.md", "picture.svg", "exercise" + l.Source(), "solution" + l.Source()} {
			if b, err := l.File(name); err != nil || len(b) < 100 {
				t.Errorf("%s/%s: %d bytes, %v", l.Folder, name, len(b), err)
			}
		}
		en, err := l.Hints("en")
		if err != nil {
			t.Fatal(err)
		}
		ko, err := l.Hints("ko")
		if err != nil || len(en) < 2 || len(en) != len(ko) {
			t.Errorf("%s: %d hints in English, %d in Korean, %v", l.Folder, len(en), len(ko), err)
		}
	}
}

func TestBinariesAreWhatTheirSourcesMake(t *testing.T) {
	for _, tool := range []string{"as", "ld", "bash"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	if out, err := exec.Command("bash", "../../../docs/labs/build.sh", "--verify").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestAssemblerErrorsAreClear(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := Program(t.Context(), "../../../docs/labs/01-twelve-bytes/demo.s")
	if err == nil || !strings.Contains(err.Error(), "install GNU binutils") {
		t.Error(err)
	}
	if _, err := buildDevice(t.Context(), t.TempDir(), nil); err == nil || !strings.Contains(err.Error(), "go is not installed") {
		t.Error(err)
	}
	if _, err := Find("99"); err == nil || !strings.Contains(err.Error(), "there are 1 to") {
		t.Error(err)
	}
}
