package lab

import (
	"io/fs"
	"os/exec"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/docs/labs"
)

var soft = Options{Accel: "soft", Limit: 300 * time.Millisecond}

// wrong is what a check must say of each program that is wrong on purpose.
var wrong = map[string]string{
	"01-twelve-bytes/exercise.bin":      `must send "3210\n", and sent "3\n"`,
	"01-twelve-bytes/wrong-port.bin":    "writes port 0x2f8",
	"01-twelve-bytes/wrong-endless.bin": "has not halted; it is here",
	"01-twelve-bytes/wrong-zero.bin":    `sent "321\n"`,
	"02-run-loop/exercise.bin":          "must be read once, as each IN is an exit, and it was read 5 times",
	"02-run-loop/wrong-bx.bin":          "BX must be as it was, 0x5, and is 0x0",
	"02-run-loop/wrong-guess.bin":       "it was read 0 times",
	"02-run-loop/wrong-count.bin":       `sent "VVVVVV"`,
	"03-long-mode/exercise.bin":         "0x40000000",
	"03-long-mode/wrong-pae.bin":        "triple fault",
	"03-long-mode/wrong-present.bin":    "0x40000000",
	"03-long-mode/wrong-page.bin":       "must be physical 0x200000",
	"03-long-mode/wrong-l-bit.bin":      "compatibility mode (32-bit)",
}

func TestWrongProgramsAreDiagnosed(t *testing.T) {
	for _, l := range All() {
		entries, err := fs.ReadDir(labs.Files, l.Folder)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			name := e.Name()
			if name != "exercise.bin" && (!strings.HasPrefix(name, "wrong-") || path.Ext(name) != ".bin") {
				continue
			}
			t.Run(l.Folder+"/"+name, func(t *testing.T) {
				t.Parallel()
				program, err := l.File(name)
				if err != nil {
					t.Fatal(err)
				}
				broken, err := l.Check(t.Context(), program, soft)
				if err != nil {
					t.Fatal(err)
				}
				want := wrong[l.Folder+"/"+name]
				if got := strings.Join(broken, "\n"); want == "" || !strings.Contains(got, want) {
					t.Errorf("want %q in:\n%s", want, got)
				}
			})
		}
	}
}

func TestSolutionsAreRight(t *testing.T) {
	o := soft
	o.Limit = 10 * time.Second // not waited for
	for _, l := range All() {
		program, err := l.File("solution.bin")
		if err != nil {
			t.Fatal(err)
		}
		broken, err := l.Check(t.Context(), program, o)
		if err != nil || len(broken) > 0 {
			t.Errorf("lab %d: %q, %v", l.Number, broken, err)
		}
	}
}

func TestDemosSayWhatTheirPagesTell(t *testing.T) {
	o := soft
	o.Limit = 10 * time.Second
	for i, want := range []string{"4\n", "V", "64\n"} {
		l := All()[i]
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
		for _, name := range []string{"README.md", "README.ko.md", "picture.svg", "demo.s", "exercise.s", "solution.s"} {
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
	if _, err := Find("99"); err == nil || !strings.Contains(err.Error(), "there are 1 to") {
		t.Error(err)
	}
}
