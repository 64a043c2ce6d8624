// Package chrome drives a headless Chromium through its DevTools protocol
// (https://chromedevtools.github.io/devtools-protocol/), for tests and for
// pictures of pages: as much as those need.
package chrome

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// Programs are the names under which Chromium is looked for.
var Programs = []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"}

// Find is the path of the browser, or "".
func Find() string {
	for _, p := range Programs {
		if path, err := exec.LookPath(p); err == nil {
			return path
		}
	}
	return ""
}

// Browser is a browser with one page.
type Browser struct {
	cmd  *exec.Cmd
	home string
	conn *websocket.Conn

	mu      sync.Mutex
	next    int
	calls   map[int]chan reply
	session string
	wrong   []string
	closed  error
}

type reply struct {
	result json.RawMessage
	err    error
}

// maxMessage is how long a message may be: a picture is one.
const maxMessage = 64 << 20

// Start starts the browser at path, with a page of w by h pixels.
func Start(ctx context.Context, path string, w, h int) (*Browser, error) {
	home, err := os.MkdirTemp("", "vitrine-chromium-")
	if err != nil {
		return nil, err
	}
	b := &Browser{home: home, calls: make(map[int]chan reply)}
	// Without the sandbox, which root cannot have: the page is our own.
	b.cmd = exec.Command(path, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-extensions", "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--mute-audio", "--force-color-profile=srgb",
		"--remote-debugging-port=0", "--user-data-dir="+home, fmt.Sprintf("--window-size=%d,%d", w, h), "about:blank")
	ownGroup(b.cmd)
	said, err := b.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := b.cmd.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(home))
	}
	if err := b.connect(ctx, bufio.NewScanner(said), w, h); err != nil {
		return nil, errors.Join(fmt.Errorf("chromium: %w", err), b.Close())
	}
	return b, nil
}

func (b *Browser) connect(ctx context.Context, said *bufio.Scanner, w, h int) error {
	stop := context.AfterFunc(ctx, func() { killGroup(b.cmd) })
	defer stop()
	url := ""
	for url == "" && said.Scan() {
		_, url, _ = strings.Cut(said.Text(), "DevTools listening on ")
	}
	go func() {
		for said.Scan() { // so that it can say what it likes
		}
	}()
	if url == "" {
		return errors.New("it ended before it could be reached")
	}
	var err error
	if b.conn, _, err = websocket.Dial(ctx, url, nil); err != nil {
		return err
	}
	b.conn.SetReadLimit(maxMessage)
	go b.listen()
	return b.open(ctx, w, h)
}

// open makes the page.
func (b *Browser) open(ctx context.Context, w, h int) error {
	var target struct{ TargetID string }
	if err := b.Call(ctx, "Target.createTarget", map[string]any{"url": "about:blank"}, &target); err != nil {
		return err
	}
	var attached struct{ SessionID string }
	if err := b.Call(ctx, "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached); err != nil {
		return err
	}
	b.mu.Lock()
	b.session = attached.SessionID
	b.mu.Unlock()
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		if err := b.Call(ctx, domain+".enable", nil, nil); err != nil {
			return err
		}
	}
	return b.Size(ctx, w, h)
}

// Size makes the page w by h pixels.
func (b *Browser) Size(ctx context.Context, w, h int) error {
	return b.Call(ctx, "Emulation.setDeviceMetricsOverride", map[string]any{"width": w, "height": h, "deviceScaleFactor": 1, "mobile": false}, nil)
}

// Close ends the browser.
func (b *Browser) Close() error {
	if b.conn != nil {
		_ = b.conn.CloseNow()
	}
	killGroup(b.cmd)
	_ = b.cmd.Wait()
	var err error
	for range 50 { // its processes end one after the other
		if err = os.RemoveAll(b.home); err == nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

// message is what comes: an answer or an event.
type message struct {
	ID     int
	Result json.RawMessage
	Error  *struct{ Message string }
	Method string
	Params json.RawMessage
}

func (b *Browser) listen() {
	for {
		_, p, err := b.conn.Read(context.Background())
		if err != nil {
			b.end(fmt.Errorf("chromium has ended: %w", err))
			return
		}
		var m message
		if json.Unmarshal(p, &m) != nil {
			continue
		}
		if m.ID == 0 {
			b.event(&m)
			continue
		}
		b.mu.Lock()
		c := b.calls[m.ID]
		delete(b.calls, m.ID)
		b.mu.Unlock()
		if c == nil {
			continue
		}
		r := reply{result: m.Result}
		if m.Error != nil {
			r.err = errors.New(m.Error.Message)
		}
		c <- r
	}
}

func (b *Browser) end(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = err
	for id, c := range b.calls {
		delete(b.calls, id)
		c <- reply{err: err}
	}
}

// event notes what goes wrong in the page.
func (b *Browser) event(m *message) {
	var p struct {
		Type             string
		Args             []struct{ Value, Description any }
		ExceptionDetails struct {
			Text      string
			URL       string
			Line      int `json:"lineNumber"`
			Exception struct{ Description string }
		}
		Entry struct{ Level, Text, URL string }
	}
	if json.Unmarshal(m.Params, &p) != nil {
		return
	}
	s := ""
	switch {
	case m.Method == "Runtime.exceptionThrown":
		d := p.ExceptionDetails
		s = fmt.Sprintf("%s %s (%s:%d)", d.Text, d.Exception.Description, d.URL, d.Line+1)
	case m.Method == "Runtime.consoleAPICalled" && (p.Type == "error" || p.Type == "warning"):
		s = fmt.Sprintf("console: %v", p.Args)
	case m.Method == "Log.entryAdded" && (p.Entry.Level == "error" || p.Entry.Level == "warning"):
		s = fmt.Sprintf("log: %s %s", p.Entry.Text, p.Entry.URL)
	default:
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wrong = append(b.wrong, s)
}

// Wrong is what has gone wrong in the page: exceptions, and errors and warnings
// on its console.
func (b *Browser) Wrong() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.wrong...)
}

// Call calls a method of the protocol.
func (b *Browser) Call(ctx context.Context, method string, params, result any) error {
	c := make(chan reply, 1)
	b.mu.Lock()
	if b.closed != nil {
		b.mu.Unlock()
		return b.closed
	}
	b.next++
	id := b.next
	b.calls[id] = c
	q := map[string]any{"id": id, "method": method}
	if b.session != "" {
		q["sessionId"] = b.session
	}
	b.mu.Unlock()
	if params != nil {
		q["params"] = params
	}
	p, err := json.Marshal(q)
	if err != nil {
		return err
	}
	if err := b.conn.Write(ctx, websocket.MessageText, p); err != nil {
		return err
	}
	select {
	case r := <-c:
		if r.err != nil {
			return fmt.Errorf("%s: %w", method, r.err)
		}
		if result == nil {
			return nil
		}
		return json.Unmarshal(r.result, result)
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", method, ctx.Err())
	}
}
