//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/cmd/internal/view/chrome"
	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
)

// visitor is somebody who looks at a view with a browser.
type visitor struct {
	t   *testing.T
	ctx context.Context
	b   *chrome.Browser
}

func (v *visitor) must(err error) {
	v.t.Helper()
	if err != nil {
		var text string
		_ = v.b.Eval(v.ctx, "document.body.innerText", &text)
		v.t.Fatalf("%v; the page has errors %q and says\n%s", err, v.b.Wrong(), text)
	}
}

func (v *visitor) wait(expression string) { v.t.Helper(); v.must(v.b.Wait(v.ctx, expression)) }

func (v *visitor) text(selector string) (s string) {
	v.t.Helper()
	v.must(v.b.Eval(v.ctx, fmt.Sprintf("document.querySelector(%q).textContent", selector), &s))
	return s
}

func (v *visitor) click(selector string) {
	v.t.Helper()
	v.must(v.b.Eval(v.ctx, fmt.Sprintf("document.querySelector(%q).click()", selector), nil))
}

// typeAtConsole types a line, and waits until the terminal shows the answer.
func (v *visitor) typeAtConsole(line, answer string) {
	v.t.Helper()
	v.click("#tab-0")
	v.must(v.b.Eval(v.ctx, "document.querySelector('.xterm-helper-textarea').focus()", nil))
	v.must(v.b.Keys(v.ctx, line+"\n"))
	v.wait(fmt.Sprintf("document.querySelector('.xterm-rows').textContent.includes(%q)", answer))
}

// browserTime is how long a visit may take on a host that is busy.
var browserTime = acceltest.Limit(2 * time.Minute)

func visit(t *testing.T, url string) *visitor {
	t.Helper()
	path := chrome.Find()
	if path == "" {
		t.Skipf("none of %v is in PATH", chrome.Programs)
	}
	ctx, cancel := context.WithTimeout(context.Background(), browserTime)
	t.Cleanup(cancel)
	b, err := chrome.Start(ctx, path, 1400, 900)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	v := &visitor{t, ctx, b}
	v.must(b.Navigate(ctx, url))
	return v
}

// A guest on the software CPU, seen in a browser from the address that vitrine
// view prints: counters move, the console answers, and the machine is paused,
// stepped and resumed from the page.
func TestViewInABrowser(t *testing.T) {
	if chrome.Find() == "" {
		t.Skipf("none of %v is in PATH", chrome.Programs)
	}
	newState(t)
	start(t, "glass")
	v := visit(t, untilSaid(t, program(t, "view", "glass"), "http://127.0.0.1:"))

	v.wait(`document.querySelector('#title .pill').textContent === 'running'`)
	v.wait(`document.querySelectorAll('.room.device').length > 5 && document.querySelector('.room.cpu .mode').textContent.includes('64-bit')`)
	v.wait(`document.querySelector('.memory .figures').textContent.includes('MiB')`)
	v.wait(`document.querySelector('.xterm-rows').textContent.includes('#')`) // its shell's prompt
	var address string
	v.must(v.b.Eval(v.ctx, "location.href", &address))
	if strings.Contains(address, "token") {
		t.Errorf("the token is in the address bar: %s", address)
	}

	v.typeAtConsole(`echo $((6*7))-answer`, "42-answer")
	v.wait(`document.querySelectorAll('.rows tbody tr').length > 10`)
	v.wait(`document.querySelector('.why').textContent.length > 20`)
	// One that speaks and one that keeps the CPU from halting, for the steps.
	v.typeAtConsole(`while :; do echo tick$((i=i+1)); sleep 0.2; done & while :; do :; done &`, "tick3")
	moved := v.text(".rooftext")
	v.wait(fmt.Sprintf(`document.querySelector('.rooftext').textContent !== %q`, moved))
	v.wait(`[...document.querySelectorAll('.room.device')].some((r) => r.textContent.includes('COM1') && /write [1-9]/.test(r.textContent))`)

	v.must(v.b.Eval(v.ctx, `document.activeElement.blur()`, nil))
	v.must(v.b.Press(v.ctx, "/"))
	v.must(v.b.Keys(v.ctx, "device=COM1\n"))
	v.wait(`document.querySelectorAll('.rows tbody tr').length > 3 && [...document.querySelectorAll('.rows .what')].every((e) => e.textContent.includes('COM1'))`)
	v.must(v.b.Keys(v.ctx, " and took>\n"))
	v.wait(`document.querySelector('.wrong').textContent.includes('a value is missing')`)
	v.must(v.b.Eval(v.ctx, `document.querySelector('.track').focus()`, nil))
	v.must(v.b.Press(v.ctx, "ArrowLeft"))
	v.wait(`document.querySelector('#live').getAttribute('aria-pressed') === 'false' && document.querySelector('.track').getAttribute('aria-valuetext').includes('ago')`)
	v.must(v.b.Press(v.ctx, "l"))
	v.wait(`document.querySelector('#live').getAttribute('aria-pressed') === 'true'`)

	v.stepAndResume()

	v.must(v.b.Press(v.ctx, "t"))
	v.must(v.b.Press(v.ctx, "f"))
	v.wait(`document.documentElement.dataset.theme === 'dark' && document.documentElement.classList.contains('presenter')`)
	if wrong := v.b.Wrong(); len(wrong) > 0 {
		t.Errorf("the page has errors: %q", wrong)
	}
	want(t, "kill", "glass")
	v.wait(`document.querySelector('#title .pill').textContent === 'ended' && document.querySelector('#trouble').textContent.includes('glass has ended')`)
	start(t, "glass")
	v.wait(`document.querySelector('#title .pill').textContent === 'running'`) // the next of this name is shown by itself
}

// stepAndResume pauses the machine, steps, looks at registers and page tables,
// and lets it run on.
func (v *visitor) stepAndResume() {
	v.t.Helper()
	v.click("#pause")
	v.wait(`document.querySelector('#title .pill').textContent === 'paused' && !document.querySelector('#step').disabled`)
	v.click("#tab-1")
	v.wait(`document.querySelectorAll('.code .here').length === 1`)
	seen := map[string]bool{v.text(".code .here .addr"): true}
	v.must(v.b.Eval(v.ctx, `document.querySelector('.cpupane input').value = 'start_kernel'`, nil))
	v.must(v.b.Eval(v.ctx, `document.querySelector('.cpupane .bar button').click()`, nil))
	v.wait(`document.querySelectorAll('.code li').length > 9 && document.querySelector('.code li .addr').textContent.startsWith('0xffffffff8')`)
	v.must(v.b.Eval(v.ctx, `document.querySelector('.cpupane input').value = ''`, nil))
	for range 5 {
		v.must(v.b.Eval(v.ctx, `document.querySelector('.registers').replaceChildren()`, nil))
		v.must(v.b.Press(v.ctx, "s"))
		v.wait(`document.querySelectorAll('.registers .reg').length > 16`)
		seen[v.text(".code .here .addr")] = true
	}
	if len(seen) < 3 {
		v.t.Errorf("RIP was at %d places in five steps: %v", len(seen), seen)
	}
	v.click("#tab-2")
	v.wait(`document.querySelectorAll('.steps .level').length >= 2`)
	v.click("#tab-3")
	v.wait(`document.querySelector('.lookpane pre').textContent.includes('virtio')`)
	v.must(v.b.Press(v.ctx, "p"))
	v.wait(`document.querySelector('#title .pill').textContent === 'running'`)
	v.click("#tab-0")
	v.must(v.b.Eval(v.ctx, `document.querySelector('.xterm-helper-textarea').focus()`, nil))
	v.must(v.b.Keys(v.ctx, `echo $((40+4))-again`))
	v.must(v.b.Eval(v.ctx, `[...document.querySelectorAll('.keys button')].find((b) => b.textContent === 'Enter').click()`, nil))
	v.wait(`document.querySelector('.xterm-rows').textContent.includes('44-again')`)
	v.must(v.b.Press(v.ctx, "F6"))
	v.wait(`!document.activeElement.closest('.xterm')`)
}

// Without the token, and from a site of somebody else's, a browser gets
// nothing.
func TestViewRefusesOtherSites(t *testing.T) {
	if chrome.Find() == "" {
		t.Skipf("none of %v is in PATH", chrome.Programs)
	}
	newState(t)
	url := untilSaid(t, program(t, "view"), "http://127.0.0.1:")
	v := visit(t, url)
	v.wait(`document.querySelector('.none')`)
	var page string
	v.must(v.b.Eval(v.ctx, "location.pathname", &page))
	bare, _, _ := strings.Cut(url, "?")
	// The same server by another name is another site: as DNS rebinding and
	// other ports have it.
	other := strings.Replace(bare, "127.0.0.1", "localhost", 1)
	v.must(v.b.Navigate(v.ctx, other))
	v.wait(`document.body.innerText.includes('has a token')`)
	var got string
	v.must(v.b.Eval(v.ctx, fmt.Sprintf(`fetch(%q, {credentials: 'include'}).then((r) => 'status ' + r.status, (e) => 'refused')`,
		strings.TrimSuffix(bare, "/")+page+"api/machines"), &got))
	if got != "refused" && !strings.HasPrefix(got, "status 4") {
		t.Errorf("another site reads the machines: %s", got)
	}
}

func TestViewMistakes(t *testing.T) {
	t.Setenv("VITRINE_STATE", t.TempDir())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, c := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"view", "absent"}, statusFailure, "no such machine"},
		{[]string{"view", "--listen", "here"}, statusUsage, "HOST:PORT"},
		{[]string{"view", "--listen", ":8080"}, statusUsage, "which address"},
		{[]string{"view", "--listen", l.Addr().String()}, statusFailure, "choose another address"},
		{[]string{"view", "--symbols", "/nonexistent"}, statusFailure, "/nonexistent"},
	} {
		if status, _, e := command(c.args...); status != c.status || !strings.Contains(e, c.want) || strings.Count(e, "\n") != 1 {
			t.Errorf("%v: status %d, %q", c.args, status, e)
		}
	}
}
