package share

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
	"golang.org/x/sys/unix"
)

// tree makes a folder with a secret beside it, and shows the folder.
func tree(t testing.TB, readOnly bool) (s *Share, root p9.File, dir string) {
	t.Helper()
	top := t.TempDir()
	dir = filepath.Join(top, "shared")
	mustDo(t, os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(top, "secret"), []byte("secret"), 0o600),
		os.Mkdir(filepath.Join(dir, "sub"), 0o755), os.WriteFile(filepath.Join(dir, "sub", "f"), []byte("inside"), 0o644))
	s, err := Open(dir, readOnly)
	if err != nil {
		t.Fatal(err)
	}
	root, err = s.Attach()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = root.Close()
		if n := s.nodes.Load(); n != 0 {
			t.Errorf("%d nodes are left open", n)
		}
		_ = s.Close()
	})
	return s, root, dir
}

func mustDo(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func walk(t testing.TB, from p9.File, names ...string) p9.File {
	t.Helper()
	_, f, err := from.Walk(names)
	if err != nil {
		t.Fatalf("walk to %v: %v", names, err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func content(f p9.File) (string, error) {
	if _, _, err := f.Open(p9.ReadOnly); err != nil {
		return "", err
	}
	b := make([]byte, 100)
	n, err := f.ReadAt(b, 0)
	if err == io.EOF {
		err = nil
	}
	return string(b[:n]), err
}

func wantErrno(t testing.TB, what string, err error, want ...linux.Errno) {
	t.Helper()
	for _, e := range want {
		if errors.Is(err, e) {
			return
		}
	}
	t.Errorf("%s: %v, want %v", what, err, want)
}

func TestReadWrite(t *testing.T) {
	_, root, dir := tree(t, false)
	if got, err := content(walk(t, root, "sub", "f")); got != "inside" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	f, _, _, err := walk(t, root, "sub").Create("new", p9.ReadWrite|unix.O_CREAT, 0o6755, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n, err := f.WriteAt([]byte("0123456789"), 3); n != 10 || err != nil {
		t.Errorf("wrote %d bytes, %v", n, err)
	}
	mustDo(t, f.FSync(), f.SetAttr(p9.SetAttrMask{Size: true, Permissions: true, MTime: true, MTimeNotSystemTime: true},
		p9.SetAttr{Size: 8, Permissions: 0o4640, MTimeSeconds: 12345}))
	path := filepath.Join(dir, "sub", "new")
	p, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(p, []byte("\x00\x00\x0001234")) {
		t.Errorf("the file has %q, %v", p, err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode() != 0o640 || st.ModTime().Unix() != 12345 {
		t.Errorf("mode %v, time %v, %v: want no setuid bit", st.Mode(), st.ModTime(), err)
	}
	_, _, a, err := f.GetAttr(p9.AttrMaskAll)
	if err != nil || a.Size != 8 || a.MTimeSeconds != 12345 || uint32(a.Mode)&0o7777 != 0o640 {
		t.Errorf("attributes %+v, %v", a, err)
	}
	if st, err := root.StatFS(); err != nil || st.BlockSize == 0 || st.NameLength == 0 {
		t.Errorf("file system %+v, %v", st, err)
	}
}

func TestNamesThatEscape(t *testing.T) {
	_, root, _ := tree(t, false)
	long := strings.Repeat("x", 300)
	for _, name := range []string{"..", ".", "", "/", "sub/f", "../secret", "/etc/passwd", "sub\x00", "\x00", "..\x00", long} {
		if _, f, err := root.Walk([]string{name}); err == nil {
			_ = f.Close()
			t.Errorf("walk to %q succeeds", name)
		}
		if _, f, err := root.Walk([]string{"sub", name}); err == nil {
			_ = f.Close()
			t.Errorf("walk to sub and %q succeeds", name)
		}
		if f, _, _, err := root.Create(name, p9.ReadWrite|unix.O_CREAT, 0o600, 0, 0); err == nil {
			_ = f.Close()
			t.Errorf("create %q succeeds", name)
		}
		_, err1 := root.Mkdir(name, 0o700, 0, 0)
		_, err2 := root.Symlink("x", name, 0, 0)
		_, err3 := root.Mknod(name, unix.S_IFREG|0o600, 0, 0, 0, 0)
		for i, err := range []error{err1, err2, err3, root.UnlinkAt(name, 0), root.UnlinkAt(name, unix.AT_REMOVEDIR),
			root.RenameAt("sub", root, name), root.RenameAt(name, root, "y"), root.Link(walk(t, root, "sub", "f"), name)} {
			if err == nil {
				t.Errorf("operation %d on %q succeeds", i, name)
			}
		}
	}
}

func TestSymbolicLinksAreNotFollowed(t *testing.T) {
	_, root, dir := tree(t, false)
	for name, target := range map[string]string{"up": "..", "out": "../secret", "abs": "/etc", "in": "sub", "self": "/proc/self/root"} {
		if _, err := root.Symlink(target, name, 0, 0); err != nil {
			t.Fatal(err)
		}
		l := walk(t, root, name)
		if got, err := l.Readlink(); got != target || err != nil {
			t.Errorf("%s points to %q, %v", name, got, err)
		}
		_, err := content(l)
		wantErrno(t, "open "+name, err, linux.EPERM)
		if _, f, err := root.Walk([]string{name, "x"}); !errors.Is(err, linux.ENOTDIR) {
			t.Errorf("walk through %s: %v, %v", name, f, err)
		}
		_, err = l.Mkdir("d", 0o700, 0, 0)
		wantErrno(t, "mkdir in "+name, err, linux.ENOTDIR)
		wantErrno(t, "truncate "+name, l.SetAttr(p9.SetAttrMask{Size: true}, p9.SetAttr{}), linux.EINVAL)
		wantErrno(t, "chmod "+name, l.SetAttr(p9.SetAttrMask{Permissions: true}, p9.SetAttr{Permissions: 0o777}), linux.EOPNOTSUPP)
		wantErrno(t, "link to "+name, root.Link(l, "hard"), linux.EPERM)
		_, _, _, err = root.Create(name, p9.ReadWrite|unix.O_CREAT, 0o600, 0, 0)
		wantErrno(t, "create over "+name, err, linux.EPERM)
		_, _, _, err = root.Create(name, p9.ReadWrite|unix.O_CREAT|unix.O_EXCL, 0o600, 0, 0)
		wantErrno(t, "create over "+name, err, linux.EEXIST)
	}
	if p, err := os.ReadFile(filepath.Join(filepath.Dir(dir), "secret")); string(p) != "secret" || err != nil {
		t.Errorf("the file outside has %q, %v", p, err)
	}
}

// TestSwapRaces replaces names by links to the outside while they are used, as
// a second guest on the same folder could. What is reached is always inside.
func TestSwapRaces(t *testing.T) {
	_, root, dir := tree(t, false)
	top := filepath.Dir(dir)
	mustDo(t, os.Mkdir(filepath.Join(top, "outside"), 0o755), os.WriteFile(filepath.Join(top, "outside", "f"), []byte("secret"), 0o644),
		os.Symlink("../outside", filepath.Join(dir, "link")), os.Symlink("../secret", filepath.Join(dir, "flink")),
		os.WriteFile(filepath.Join(dir, "file"), []byte("inside"), 0o644))
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stop.Load() {
			for _, p := range [][2]string{{"sub", "link"}, {"file", "flink"}} {
				_ = unix.Renameat2(unix.AT_FDCWD, filepath.Join(dir, p[0]), unix.AT_FDCWD, filepath.Join(dir, p[1]), unix.RENAME_EXCHANGE)
			}
		}
	}()
	for range 2000 {
		for _, names := range [][]string{{"sub", "f"}, {"file"}} {
			_, f, err := root.Walk(names)
			if err != nil {
				continue
			}
			if got, err := content(f); err == nil && got != "inside" {
				t.Fatalf("read %q", got)
			}
			_ = f.SetAttr(p9.SetAttrMask{Size: true}, p9.SetAttr{Size: 6})
			_ = f.Close()
		}
		if f, _, _, err := root.Create("file", p9.ReadWrite|unix.O_CREAT, 0o600, 0, 0); err == nil {
			_, _ = f.WriteAt([]byte("inside"), 0)
			_ = f.Close()
		}
	}
	stop.Store(true)
	<-done
	for _, name := range []string{"secret", "outside/f"} {
		if p, err := os.ReadFile(filepath.Join(top, name)); string(p) != "secret" || err != nil {
			t.Errorf("%s has %q, %v", name, p, err)
		}
	}
}

func TestHardLinks(t *testing.T) {
	s, root, dir := tree(t, false)
	f := walk(t, root, "sub", "f")
	mustDo(t, root.Link(f, "hard"))
	if p, err := os.ReadFile(filepath.Join(dir, "hard")); string(p) != "inside" || err != nil {
		t.Errorf("the link has %q, %v", p, err)
	}
	wantErrno(t, "link to a directory", root.Link(walk(t, root, "sub"), "d"), linux.EPERM)
	_, other, _ := tree(t, false)
	wantErrno(t, "link into another share", other.Link(f, "x"), linux.EXDEV)
	wantErrno(t, "rename into another share", root.RenameAt("hard", other, "x"), linux.EXDEV)
	_ = s
}

func TestSpecialFiles(t *testing.T) {
	_, root, dir := tree(t, false)
	for _, mode := range []uint32{unix.S_IFCHR, unix.S_IFBLK, unix.S_IFDIR, unix.S_IFLNK} {
		_, err := root.Mknod("dev", p9.FileMode(mode|0o600), 1, 3, 0, 0)
		wantErrno(t, fmt.Sprintf("mknod %o", mode), err, linux.EPERM)
	}
	if _, err := root.Mknod("pipe", unix.S_IFIFO|0o600, 0, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	sock, err := net.Listen("unix", filepath.Join(dir, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	names := []string{"pipe", "sock"}
	if unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) == nil {
		names = append(names, "null")
	}
	for _, name := range names {
		_, err := content(walk(t, root, name)) // would wait for ever on the pipe
		wantErrno(t, "open "+name, err, linux.EPERM)
		_, _, _, err = root.Create(name, p9.ReadWrite|unix.O_CREAT, 0o600, 0, 0)
		wantErrno(t, "create over "+name, err, linux.EPERM)
	}
}

func TestReadOnly(t *testing.T) {
	_, root, dir := tree(t, true)
	f := walk(t, root, "sub", "f")
	if got, err := content(f); got != "inside" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	_, err1 := root.Mkdir("d", 0o700, 0, 0)
	_, err2 := root.Symlink("x", "l", 0, 0)
	_, err3 := root.Mknod("n", unix.S_IFREG, 0, 0, 0, 0)
	_, _, _, err4 := root.Create("c", p9.ReadOnly|unix.O_CREAT, 0o600, 0, 0)
	_, _, err5 := walk(t, root, "sub", "f").Open(p9.WriteOnly)
	_, _, err6 := walk(t, root, "sub", "f").Open(p9.ReadOnly | unix.O_TRUNC)
	for i, err := range []error{err1, err2, err3, err4, err5, err6, root.UnlinkAt("sub", unix.AT_REMOVEDIR), root.RenameAt("sub", root, "bus"),
		root.Link(f, "hard"), f.SetAttr(p9.SetAttrMask{Size: true}, p9.SetAttr{}), f.SetAttr(p9.SetAttrMask{MTime: true}, p9.SetAttr{})} {
		wantErrno(t, fmt.Sprintf("change %d", i+1), err, linux.EROFS)
	}
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("a file that was opened for reading is written to")
	}
	if p, _ := os.ReadFile(filepath.Join(dir, "sub", "f")); string(p) != "inside" {
		t.Errorf("the file has %q", p)
	}
}

func TestDirectories(t *testing.T) {
	_, root, dir := tree(t, false)
	var want []string
	for i := range 300 {
		name := fmt.Sprintf("entry-%03d-%s", i, strings.Repeat("n", i%50))
		mustDo(t, os.WriteFile(filepath.Join(dir, "sub", name), nil, 0o600))
		want = append(want, name)
	}
	want = append(want, ".", "..", "f")
	d := walk(t, root, "sub")
	if _, _, err := d.Open(p9.ReadOnly); err != nil {
		t.Fatal(err)
	}
	var got []string
	for offset := uint64(0); ; {
		es, err := d.Readdir(offset, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(es) == 0 {
			break
		}
		for _, e := range es {
			got = append(got, e.Name)
			offset = e.Offset
		}
		if offset == 100 { // what is added later does not disturb
			mustDo(t, os.WriteFile(filepath.Join(dir, "sub", "late"), nil, 0o600))
		}
	}
	sort.Strings(got)
	sort.Strings(want)
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%d entries, want %d", len(got), len(want))
	}
	wantErrno(t, "remove a directory that is not empty", root.UnlinkAt("sub", unix.AT_REMOVEDIR), linux.ENOTEMPTY)
	if _, err := root.Mkdir("d", 0o7755, 0, 0); err != nil {
		t.Fatal(err)
	}
	mustDo(t, root.RenameAt("d", walk(t, root, "sub"), "moved"), walk(t, root, "sub").UnlinkAt("moved", unix.AT_REMOVEDIR))
}

// TestOpenAfterUnlink: a file that is open stays usable without a name.
func TestOpenAfterUnlink(t *testing.T) {
	_, root, _ := tree(t, false)
	f := walk(t, root, "sub", "f")
	if _, _, err := f.Open(p9.ReadWrite); err != nil {
		t.Fatal(err)
	}
	mustDo(t, walk(t, root, "sub").UnlinkAt("f", 0))
	b := make([]byte, 6)
	if n, err := f.ReadAt(b, 0); n != 6 || err != nil || string(b) != "inside" {
		t.Errorf("read %q, %v", b[:n], err)
	}
	mustDo(t, f.FSync())
}

func TestLocks(t *testing.T) {
	_, root, _ := tree(t, false)
	a, b := walk(t, root, "sub", "f"), walk(t, root, "sub", "f")
	for _, f := range []p9.File{a, b} {
		if _, _, err := f.Open(p9.ReadWrite); err != nil {
			t.Fatal(err)
		}
	}
	lock := func(f p9.File, kind p9.LockType, want p9.LockStatus) {
		t.Helper()
		if got, err := f.Lock(1, kind, 0, 0, 0, "guest"); got != want || err != nil {
			t.Errorf("lock: %v, %v, want %v", got, err, want)
		}
	}
	lock(a, p9.WriteLock, p9.LockStatusOK)
	lock(b, p9.ReadLock, p9.LockStatusBlocked)
	lock(a, p9.Unlock, p9.LockStatusOK)
	lock(b, p9.ReadLock, p9.LockStatusOK)
	lock(a, p9.ReadLock, p9.LockStatusOK)
	lock(a, p9.WriteLock, p9.LockStatusBlocked)
	if _, err := a.Lock(1, 77, 0, 0, 0, ""); err == nil {
		t.Error("a lock of unknown kind succeeds")
	}
}

// TestLimit: a guest cannot take all descriptors of the VMM.
func TestLimit(t *testing.T) {
	s, root, _ := tree(t, false)
	s.limit = 10
	var held []p9.File
	for range 20 {
		_, f, err := root.Walk([]string{"sub"})
		if err != nil {
			wantErrno(t, "the last walk", err, linux.ENFILE)
			break
		}
		held = append(held, f)
	}
	if len(held) >= 10 {
		t.Errorf("%d nodes with a limit of 10", len(held))
	}
	for _, f := range held {
		_ = f.Close()
		_ = f.Close() // harmless
	}
	_ = walk(t, root, "sub")
}

func TestOpenRefusesFiles(t *testing.T) {
	_, _, dir := tree(t, false)
	for _, path := range []string{filepath.Join(dir, "sub", "f"), filepath.Join(dir, "none")} {
		if s, err := Open(path, false); err == nil {
			_ = s.Close()
			t.Errorf("%s is shared", path)
		}
	}
}
