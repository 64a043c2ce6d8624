package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestPutAndGet(t *testing.T) {
	c := newClient(t)
	path := filepath.Join(t.TempDir(), "new", "folder", "file")
	data := make([]byte, 300<<10+5)
	_, _ = rand.Read(data)
	when := time.Unix(1234567890, 987654321)
	err := c.Put(timeout(t), path, bytes.NewReader(data), PutOptions{Mode: 0o640 | fs.ModeSetuid, ModTime: when, Parents: true})
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o640|fs.ModeSetuid || !info.ModTime().Equal(when) {
		t.Errorf("%v, %v", info, err)
	}
	var got bytes.Buffer
	f, err := c.Get(timeout(t), path, &got)
	if err != nil || !bytes.Equal(got.Bytes(), data) || f.Size != int64(len(data)) || f.Mode != info.Mode() || !f.ModTime.Equal(when) {
		t.Errorf("%+v, %v, %d bytes", f, err, got.Len())
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestGetProc(t *testing.T) {
	var got bytes.Buffer
	if f, err := newClient(t).Get(timeout(t), "/proc/self/comm", &got); err != nil || f.Size != 0 || got.Len() == 0 {
		t.Errorf("%+v, %v, %q", f, err, got.String())
	}
}

func TestRefusals(t *testing.T) {
	c := newClient(t)
	dir := t.TempDir()
	ctx := timeout(t)
	put := func(path string) error {
		return c.Put(ctx, path, bytes.NewReader(make([]byte, 1<<20)), PutOptions{Mode: 0o600})
	}
	get := func(path string) error {
		_, err := c.Get(ctx, path, &bytes.Buffer{})
		return err
	}
	for name, test := range map[string]struct {
		err  error
		want uint32
	}{
		"put over a directory":    {put(dir), 21},
		"put into nothing":        {put(filepath.Join(dir, "no/file")), enoent},
		"put through a file":      {put("/etc/passwd/x"), enotdir},
		"put over a device":       {put("/dev/null"), 22},
		"get a directory":         {get(dir), 21},
		"get nothing":             {get(filepath.Join(dir, "no")), enoent},
		"get a device":            {get("/dev/zero"), 22},
		"mkdir over a file":       {c.Mkdir(ctx, "/etc/passwd", PutOptions{Mode: 0o755}), enotdir},
		"symlink over directory":  {c.Symlink(ctx, "x", dir, PutOptions{}), 21},
		"list a file":             {c.List(ctx, "/etc/passwd", func(File) error { return nil }), enotdir},
		"an empty path":           {get(""), 22},
		"a name that is too long": {get("/" + strings.Repeat("x", 300)), 36},
	} {
		var e *Error
		if !errors.As(test.err, &e) || e.Errno != test.want {
			t.Errorf("%s: %v, want Linux error %d", name, test.err, test.want)
		}
	}
	if err := put("a\x00b"); err == nil {
		t.Error("a NUL byte passed")
	}
	if err := get(strings.Repeat("x", 1<<17)); !errors.Is(err, errTooLong) {
		t.Errorf("a path longer than a frame: %v", err)
	}
}

// A transfer that breaks must leave what was there, and nothing beside it.
func TestPutBroken(t *testing.T) {
	c := newClient(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(timeout(t))
	r := readerFunc(func(p []byte) (int, error) {
		entries, _ := os.ReadDir(dir)
		if len(entries) == 2 { // the new content is under way
			cancel()
			return 0, errors.New("broken")
		}
		return len(p), nil
	})
	if err := c.Put(ctx, path, r, PutOptions{}); err == nil {
		t.Fatal("no error")
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if entries, _ := os.ReadDir(dir); len(entries) == 1 {
			break
		}
	}
	entries, _ := os.ReadDir(dir)
	content, _ := os.ReadFile(path)
	if len(entries) != 1 || string(content) != "old" {
		t.Errorf("%v, content %q", entries, content)
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestListStatLinks(t *testing.T) {
	c := newClient(t)
	ctx := timeout(t)
	dir := t.TempDir()
	if err := c.Mkdir(ctx, filepath.Join(dir, "sub"), PutOptions{Mode: 0o755 | fs.ModeSticky}); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"first", "sub"} { // the second takes the first's place
		if err := c.Symlink(ctx, target, filepath.Join(dir, "link"), PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]fs.FileMode{"sub": fs.ModeDir | fs.ModeSticky | 0o755, "link": fs.ModeSymlink | 0o777}
	for i := range 1000 {
		name := "a file with a name of some length, number " + strings.Repeat("x", i%100) + string(rune('a'+i%26)) + time.Duration(i).String()
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		want[name] = 0o600
	}
	got := map[string]fs.FileMode{}
	err := c.List(ctx, dir, func(f File) error {
		got[f.Name] = f.Mode
		if f.Name == "link" && f.Target != "sub" {
			t.Errorf("target %q", f.Target)
		}
		return nil
	})
	if err != nil || len(got) != len(want) {
		t.Fatalf("%d entries, %v, want %d", len(got), err, len(want))
	}
	for name, mode := range want {
		if got[name] != mode {
			t.Errorf("%s: %v, want %v", name, got[name], mode)
		}
	}
	if f, err := c.Stat(ctx, filepath.Join(dir, "link"), true); err != nil || !f.Mode.IsDir() {
		t.Errorf("followed: %+v, %v", f, err)
	}
	if f, err := c.Stat(ctx, filepath.Join(dir, "link"), false); err != nil || f.Target != "sub" {
		t.Errorf("not followed: %+v, %v", f, err)
	}
}
