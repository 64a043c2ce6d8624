package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCacheDirectory(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CACHE_HOME", "")
	t.Setenv("VITRINE_CACHE", "")
	for _, c := range []struct{ name, value, want string }{
		{"HOME", home, home + "/.cache/vitrine"},
		{"XDG_CACHE_HOME", home + "/xdg", home + "/xdg/vitrine"},
		{"VITRINE_CACHE", home + "/own", home + "/own"},
	} {
		t.Setenv(c.name, c.value)
		got, err := cacheDir()
		if err != nil || got != filepath.FromSlash(c.want) {
			t.Errorf("with %s: %q, %v, want %q", c.name, got, err, c.want)
		}
		if info, err := os.Stat(got); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", got, info, err)
		}
	}
	file := filepath.Join(home, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("VITRINE_CACHE", file)
	if _, err := cacheDir(); err == nil || !strings.Contains(err.Error(), "VITRINE_CACHE") {
		t.Errorf("a file as cache directory: %v", err)
	}
}

func TestShellWord(t *testing.T) {
	for s, want := range map[string]string{"a/b-1.img": "a/b-1.img", "": "''", "a b": "'a b'", "it's": `'it'\''s'`} {
		if got := shellWord(s); got != want {
			t.Errorf("%q: %s, want %s", s, got, want)
		}
	}
}
