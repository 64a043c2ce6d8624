package view

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/control"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
)

// fakeMachine answers as a machine does, and remembers what it was told.
type fakeMachine struct {
	name string
	done chan struct{}
	hub  *control.Hub

	mu    sync.Mutex
	state control.State
	steps []control.StepRequest
}

func (f *fakeMachine) Record() control.Record {
	f.mu.Lock()
	defer f.mu.Unlock()
	return control.Record{Name: f.name, State: f.state, Detached: true}
}
func (f *fakeMachine) Stats() (control.Stats, error) {
	return control.Stats{Time: time.Now(), VCPUs: []control.VCPUStats{{Exits: map[string]uint64{"io": 7}}}}, nil
}
func (f *fakeMachine) Pause(context.Context) error    { f.set(control.StatePaused); return nil }
func (f *fakeMachine) Resume() error                  { f.set(control.StateRunning); return nil }
func (f *fakeMachine) Shutdown(context.Context) error { return nil }
func (f *fakeMachine) Kill(string)                    {}
func (f *fakeMachine) Done() <-chan struct{}          { return f.done }
func (f *fakeMachine) Console() *control.Hub          { return f.hub }
func (f *fakeMachine) Dial(context.Context, uint32) (net.Conn, error) {
	return nil, errors.New("it has no sockets")
}

func (f *fakeMachine) set(s control.State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state = s
}

// testMeta is a machine with a serial port and a network device.
func testMeta() trace.Meta {
	return trace.Meta{Accel: "soft", CPUs: 1, Memory: 1 << 20, Sources: []string{"vcpu0", "net0", "machine"}, Devices: []trace.Device{
		{Name: "COM1", Type: "serial", Port: true, Base: 0x3f8, Size: 8, Source: -1},
		{Name: "net0", Type: "virtio-mmio", Base: 0xd0000000, Size: 0x200, Virtio: 1, Source: 1},
	}}
}

// extra is what the machine serves beside its counters.
func (f *fakeMachine) extra(events []trace.Event) control.Extra {
	say := func(v any) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _ = json.NewEncoder(w).Encode(v) })
	}
	return control.Extra{
		Inspect: map[string]http.Handler{
			"glance": say(control.Glance{Time: time.Now(), CPUs: []control.CPUGlance{{State: "runs", RIP: 0xffffffff81000000}}}),
			"cpu": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_ = json.NewEncoder(w).Encode(map[string]string{"text": "cpu " + r.URL.Query().Get("cpu") + r.URL.Query().Get("evil")})
			}),
		},
		Action: map[string]http.Handler{"step": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var q control.StepRequest
			_ = json.NewDecoder(r.Body).Decode(&q)
			f.mu.Lock()
			f.steps = append(f.steps, q)
			f.mu.Unlock()
			_ = json.NewEncoder(w).Encode(control.StepAnswer{Steps: max(1, q.Count)})
		})},
		Stream: map[string]func(context.Context, *http.Request, net.Conn) error{
			"trace": func(ctx context.Context, _ *http.Request, conn net.Conn) error {
				meta := testMeta()
				w, err := trace.NewWriter(conn, &meta)
				if err == nil {
					err = w.Events(events)
				}
				_, _ = io.Copy(io.Discard, conn) // until the reader leaves
				return err
			},
			"pages": func(_ context.Context, _ *http.Request, conn net.Conn) error {
				_, _ = io.WriteString(conn, `[{"base":0,"size":4096,"stretches":[]}]`+"\n")
				_, _ = io.Copy(io.Discard, conn)
				return nil
			},
		},
	}
}

// testServer is a server with a machine "web" that lives, and "gone" that has
// ended.
func testServer(t testing.TB, events []trace.Event, names ...string) (*Server, *fakeMachine) {
	t.Helper()
	d, err := control.OpenDir(filepath.Join(t.TempDir(), "run"))
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeMachine{name: "web", state: control.StateRunning, done: make(chan struct{}), hub: control.NewHub()}
	for _, name := range []string{"web", "gone"} {
		c, err := d.Claim(name)
		if err != nil {
			t.Fatal(err)
		}
		state := control.StateRunning
		if name == "gone" {
			state = control.StateExited
		}
		if err := c.Update(func(r *control.Record) { r.State = state }); err != nil {
			t.Fatal(err)
		}
		if name == "gone" {
			if err := c.Release(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		cs, err := control.Serve(c.Path(control.SocketFile), f, f.extra(events))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cs.Close(); _ = c.Forget() })
	}
	s, err := Listen("127.0.0.1:0", Options{Dir: d, Names: names})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.ln.Close(); s.watch.close() })
	return s, f
}

// request asks the server's handler as its own page would, and as change says.
func request(s *Server, method, path, body string, change func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://"+s.guard.address+"/", strings.NewReader(body))
	if u, err := url.Parse("http://" + s.guard.address + path); err == nil {
		r.URL = u
	}
	r.Host = s.guard.address
	r.Header.Set("Origin", "http://"+s.guard.address)
	r.AddCookie(&http.Cookie{Name: s.guard.cookie, Value: s.guard.token})
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

func (s *Server) api(path string) string { return s.guard.path + "api/machines" + path }
