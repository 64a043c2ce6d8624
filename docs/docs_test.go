// Package docs has the documentation's tests.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

var (
	fence  = regexp.MustCompile("(?ms)^```.*?^```")
	inline = regexp.MustCompile("`[^`\n]*`")
	link   = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	header = regexp.MustCompile(`(?m)^#+ +(.+)$`)
)

// prose is a page without its code.
func prose(text string) string {
	text = fence.ReplaceAllString(text, "")
	var kept []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "    ") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// anchor is the fragment that a heading gets where Markdown is shown as HTML.
func anchor(heading string) string {
	heading = regexp.MustCompile(`\[([^]]*)\]\([^)]*\)`).ReplaceAllString(heading, "$1")
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, strings.TrimSpace(heading))
}

func anchors(t *testing.T, path string) map[string]bool {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]bool)
	for _, m := range header.FindAllStringSubmatch(fence.ReplaceAllString(string(b), ""), -1) {
		all[anchor(m[1])] = true
	}
	return all
}

// TestLinksLead: every relative link of every page leads to a file that is
// there, and to a heading of it where it names one.
func TestLinksLead(t *testing.T) {
	links := 0
	err := filepath.WalkDir("..", func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && strings.HasPrefix(e.Name(), ".") && e.Name() != "..":
			return fs.SkipDir
		case filepath.Ext(path) != ".md":
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range link.FindAllStringSubmatch(inline.ReplaceAllString(prose(string(b)), "x"), -1) {
			links++
			if trouble := follow(t, path, m[1]); trouble != "" {
				t.Errorf("%s: (%s): %s", path, m[1], trouble)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if links < 100 {
		t.Errorf("only %d links found: the test does not see them", links)
	}
}

// follow says what is wrong with a link.
func follow(t *testing.T, from, to string) string {
	t.Helper()
	if strings.Contains(to, "://") || strings.HasPrefix(to, "mailto:") {
		return ""
	}
	file, fragment, hasFragment := strings.Cut(to, "#")
	target := from
	if file != "" {
		target = filepath.Join(filepath.Dir(from), filepath.FromSlash(file))
	}
	if _, err := os.Stat(target); err != nil {
		return "there is no such file"
	}
	if hasFragment && filepath.Ext(target) == ".md" && !anchors(t, target)[fragment] {
		return "the page has no such heading"
	}
	return ""
}

func TestWrongLinksAreSeen(t *testing.T) {
	page := filepath.Join(t.TempDir(), "a.md")
	if err := os.WriteFile(page, []byte("# One page, *so* to say\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for to, good := range map[string]bool{
		"a.md": true, "#one-page-so-to-say": true, "a.md#one-page-so-to-say": true, "https://example.org/nothing": true,
		"b.md": false, "#two": false, "a.md#two": false, "../nowhere/a.md": false,
	} {
		if trouble := follow(t, page, to); (trouble == "") != good {
			t.Errorf("%s: %q", to, trouble)
		}
	}
}
