package vmm_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/vitrine-vmm/vitrine/"

// goFile is a Go file of the module: its path from the root and what it imports.
type goFile struct {
	path    string
	pkg     string // the folder, "vmm/kvm"
	test    bool
	imports []string // without the module's prefix where they are its own
}

func goFiles(t *testing.T) []goFile {
	t.Helper()
	var files []goFile
	root := os.DirFS("..")
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && (name == "testdata" || strings.HasPrefix(name, ".") && name != ".") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		src, err := fs.ReadFile(root, path)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, src, parser.ImportsOnly)
		if err != nil {
			return err
		}
		g := goFile{path: path, pkg: filepath.Dir(path), test: strings.HasSuffix(path, "_test.go")}
		for _, i := range f.Imports {
			p, _ := strconv.Unquote(i.Path.Value)
			g.imports = append(g.imports, strings.TrimPrefix(p, module))
		}
		files = append(files, g)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 20 {
		t.Fatalf("found only %d Go files: looking in the wrong place", len(files))
	}
	return files
}

func within(pkg, folder string) bool { return pkg == folder || strings.HasPrefix(pkg, folder+"/") }

// TestArrowsGoDown keeps the first rule of docs/architecture.md: cmd → vmm →
// {vmm/*, devices, boot, guest-images}; devices and boot know of the VMM only
// guest memory, the CPU's registers and what needs neither.
func TestArrowsGoDown(t *testing.T) {
	leaves := map[string]bool{"vmm/memory": true, "vmm/x86": true}
	for _, f := range goFiles(t) {
		if f.test {
			continue
		}
		for _, i := range f.imports {
			low := within(f.pkg, "devices") || within(f.pkg, "boot")
			if low && within(i, "vmm") && !leaves[i] {
				t.Errorf("%s imports %s: devices and boot may import only vmm/memory and vmm/x86", f.path, i)
			}
			if !within(f.pkg, "cmd") && within(i, "cmd") {
				t.Errorf("%s imports %s: nothing imports cmd", f.path, i)
			}
			if within(f.pkg, "vmm") && f.pkg != "vmm" && i == "vmm" {
				t.Errorf("%s imports vmm: packages below it do not know it", f.path)
			}
			if within(f.pkg, "devices") && (within(i, "boot") || within(i, "guest-images")) {
				t.Errorf("%s imports %s: devices know neither kernels nor guests", f.path, i)
			}
		}
	}
}

// TestUnsafeStaysFenced keeps the second rule: unsafe only in vmm/kvm and
// vmm/memory, in files named for it.
func TestUnsafeStaysFenced(t *testing.T) {
	for _, f := range goFiles(t) {
		for _, i := range f.imports {
			if i != "unsafe" {
				continue
			}
			name := strings.TrimSuffix(filepath.Base(f.path), ".go")
			name = strings.TrimSuffix(strings.TrimSuffix(name, "_test"), "_linux")
			if f.pkg != "vmm/kvm" && f.pkg != "vmm/memory" || !strings.HasSuffix(name, "_unsafe") {
				t.Errorf("%s imports unsafe: only *_unsafe.go in vmm/kvm and vmm/memory may", f.path)
			}
		}
	}
}

// TestHeavyLibrariesStayOutOfTheVMM keeps the fourth rule: what only one tool
// needs is imported by that tool's package.
func TestHeavyLibrariesStayOutOfTheVMM(t *testing.T) {
	homes := map[string][]string{
		"gvisor.dev/": {"vmm/usernet", "vmm/trace/decode"},
		"github.com/containers/gvisor-tap-vsock/": {"vmm/usernet"},
		"github.com/u-root/":                      {"boot", "guest-images", "cmd"},
		"gonum.org/":                              {"cmd", "vmm/compare"},
		"github.com/urfave/cli":                   {"cmd"},
	}
	for _, f := range goFiles(t) {
		for _, i := range f.imports {
			for prefix, allowed := range homes {
				if !strings.HasPrefix(i, prefix) {
					continue
				}
				ok := false
				for _, a := range allowed {
					ok = ok || within(f.pkg, a)
				}
				if !ok {
					t.Errorf("%s imports %s, which belongs in %v", f.path, i, allowed)
				}
			}
		}
	}
}
