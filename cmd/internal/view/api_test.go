package view

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/vitrine-vmm/vitrine/vmm/control"
)

func TestMachinesAreListed(t *testing.T) {
	s, _ := testServer(t, nil)
	var rows []machineRow
	if err := json.Unmarshal(request(s, "GET", s.api(""), "", nil).Body.Bytes(), &rows); err != nil {
		t.Fatal(err)
	}
	if len(rows) != 2 || rows[0].Name != "gone" || rows[0].Alive || rows[0].Ending == "" || rows[1].Name != "web" || !rows[1].Alive || rows[1].Stats == nil {
		t.Errorf("%+v", rows)
	}
	s, _ = testServer(t, nil, "gone")
	if b := request(s, "GET", s.api(""), "", nil).Body.String(); strings.Contains(b, `"web"`) {
		t.Errorf("a machine that was not asked for: %s", b)
	}
	if w := request(s, "POST", s.api("/web/pause"), "", nil); w.Code != http.StatusConflict {
		t.Errorf("a command to one: status %d", w.Code)
	}
}

func TestCommandsReachTheMachine(t *testing.T) {
	s, f := testServer(t, nil)
	for _, c := range []struct {
		method, path, body string
		want               int
		says               string
	}{
		{"POST", "/web/pause", "", 200, ""},
		{"POST", "/web/step", `{"cpu":0,"count":3}`, 200, `"steps":3`},
		{"POST", "/web/step", `{"cpu":0,"kount":3}`, 400, "kount"},
		{"POST", "/web/step", `{`, 400, "step"},
		{"POST", "/web/step", strings.Repeat(" ", 1<<20) + `{}`, 400, "step"},
		{"GET", "/web/step", "", 405, ""},
		{"POST", "/gone/pause", "", 409, "not running"},
		{"POST", "/none/pause", "", 409, "no such machine"},
		{"POST", "/..%2fweb/pause", "", 409, "does not show"},
		{"GET", "/web/inspect/cpu?cpu=1&evil=x", "", 200, `"cpu 1"`},
		{"GET", "/web/inspect/secrets", "", 404, "no view"},
		{"GET", "/web/events?filter=io", "", 200, `"lines"`},
		{"GET", "/web/events?filter=(", "", 400, "filter"},
		{"GET", "/web/events?from=-1", "", 400, "from"},
		{"GET", "/web/events?count=99999999999", "", 200, `"lines"`},
		{"GET", "/web/live", "", 426, ""},
		{"GET", "/web/nothing", "", 404, ""},
	} {
		w := request(s, c.method, s.api(c.path), c.body, nil)
		if w.Code != c.want || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s %s: status %d, want %d: %s", c.method, c.path, w.Code, c.want, w.Body)
		}
	}
	if f.Record().State != control.StatePaused || len(f.steps) != 1 || f.steps[0].Count != 3 {
		t.Errorf("the machine is %s, steps %v", f.Record().State, f.steps)
	}
}

// serving lets the server's own listener serve, for streams.
func serving(t *testing.T, s *Server) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func dialStream(t *testing.T, s *Server, what string) (*websocket.Conn, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	c, _, err := websocket.Dial(ctx, "ws://"+s.guard.address+s.api("/web/"+what), &websocket.DialOptions{HTTPHeader: http.Header{
		"Cookie": {s.guard.cookie + "=" + s.guard.token}, "Origin": {"http://" + s.guard.address}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	c.SetReadLimit(1 << 20)
	return c, ctx
}

func TestThePageIsToldWhatHappens(t *testing.T) {
	s, _ := testServer(t, busy(0, 20))
	serving(t, s)
	c, ctx := dialStream(t, s, "live")
	if err := c.Write(ctx, websocket.MessageText, []byte(`{"lines":true}`)); err != nil {
		t.Fatal(err)
	}
	var meta, glance, pages, line bool
	lines := 0
	for !meta || !glance || !pages || !line || lines == 0 {
		_, b, err := c.Read(ctx)
		if err != nil {
			t.Fatalf("meta %v, glance %v, pages %v, time line %v, %d lines: %v", meta, glance, pages, line, lines, err)
		}
		var m message
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		meta = meta || m.Meta != nil && m.Meta.Devices[0].Name == "COM1"
		glance = glance || m.Glance != nil && m.Glance.CPUs[0].RIP == 0xffffffff81000000
		pages = pages || strings.Contains(string(m.Pages), "4096")
		line = line || m.Line != nil && len(m.Line.Buckets) == timelineBuckets
		if m.Events != nil {
			lines += len(m.Events.Lines)
		}
		if !m.Input {
			continue // the record is not there yet
		}
	}
	// A wrong filter is pointed at, and a right one taken.
	for _, w := range []struct{ filter, says string }{{"took>", "a value is missing"}, {"device=COM1", ""}} {
		b, _ := json.Marshal(wish{Filter: w.filter, Lines: true})
		if err := c.Write(ctx, websocket.MessageText, b); err != nil {
			t.Fatal(err)
		}
		for {
			var m message
			_, b, err := c.Read(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(b, &m); err != nil {
				t.Fatal(err)
			}
			if m.Filter == nil || m.Filter.Text != w.filter {
				continue
			}
			if !strings.Contains(m.Filter.Error, w.says) || (w.says == "") != (m.Filter.Error == "") {
				t.Errorf("filter %q: %q", w.filter, m.Filter.Error)
			}
			break
		}
	}
}

func TestTheConsoleIsJoined(t *testing.T) {
	s, f := testServer(t, nil)
	serving(t, s)
	_, _ = f.hub.Write([]byte("login: "))
	c, ctx := dialStream(t, s, "console")
	_, b, err := c.Read(ctx)
	if err != nil || string(b) != "login: " {
		t.Fatalf("%q, %v", b, err)
	}
	if err := c.Write(ctx, websocket.MessageBinary, []byte("root\r")); err != nil {
		t.Fatal(err)
	}
	typed := make([]byte, 5)
	if _, err := f.hub.Input().Read(typed); err != nil || string(typed) != "root\r" {
		t.Errorf("typed %q, %v", typed, err)
	}
}

func FuzzRequest(f *testing.F) {
	s, _ := testServer(f, busy(0, 50))
	for _, path := range []string{"", "/web/events?filter=io&count=3", "/web/inspect/cpu?cpu=0", "/web/step", "/x/%2e%2e/pause", "/web/events?before=18446744073709551615&time=1"} {
		f.Add("GET", path, "{}", "http://x")
		f.Add("POST", path, `{"cpu":0,"count":1}`, "")
	}
	f.Fuzz(func(t *testing.T, method, path, body, origin string) {
		if len(method) > 10 || strings.ContainsFunc(method, func(r rune) bool { return r < 'A' || r > 'Z' }) || method == "" {
			return
		}
		if _, err := url.Parse("http://h" + s.api(path)); err != nil {
			return
		}
		w := request(s, method, s.api(path), body, nil)
		if w.Code >= 500 && w.Code != http.StatusNotImplemented {
			t.Errorf("%s %q: status %d: %s", method, path, w.Code, w.Body)
		}
		w = request(s, method, s.api(path), body, func(r *http.Request) { r.Header.Set("Origin", origin) })
		if w.Code < 400 && origin != "" && !strings.EqualFold(origin, "http://"+s.guard.address) {
			t.Errorf("%s %q of %q: status %d", method, path, origin, w.Code)
		}
	})
}

// FuzzWish is what a page may say of its wishes.
func FuzzWish(f *testing.F) {
	f.Add(`{"filter":"device=COM1 took>10us","lines":true}`)
	f.Add(`{"filter":"("}`)
	st := newStore(testMeta())
	st.add(busy(0, 200))
	f.Fuzz(func(t *testing.T, text string) {
		var w wish
		if json.Unmarshal([]byte(text), &w) != nil {
			return
		}
		p := &page{server: &Server{}, watch: new(watch)}
		p.want(w)
		m := p.message(state{}, st)
		if m.Filter == nil || m.Filter.Text != w.Filter || m.Filter.Error == "" && w.Filter != "" && p.filter == nil {
			t.Errorf("filter %q is neither taken nor refused", w.Filter)
		}
	})
}
