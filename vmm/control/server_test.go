package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

type fakeMachine struct {
	mu     sync.Mutex
	state  State
	done   chan struct{}
	killed string
	obeys  bool // shuts down when asked
	busy   atomic.Int32
	asked  atomic.Int32 // how often Done was called
	hub    *Hub
}

func newFake() *fakeMachine {
	return &fakeMachine{state: StateRunning, done: make(chan struct{}), hub: NewHub()}
}

func (f *fakeMachine) Record() Record {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Record{Name: "fake", State: f.state, Reason: f.killed}
}
func (f *fakeMachine) Stats() (Stats, error) { return Stats{CPUTime: time.Second}, nil }

func (f *fakeMachine) set(s State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state = s
}

func (f *fakeMachine) Pause(context.Context) error {
	if f.busy.Add(1) != 1 {
		return errors.New("two commands at once")
	}
	time.Sleep(5 * time.Millisecond)
	f.busy.Add(-1)
	f.set(StatePaused)
	return nil
}
func (f *fakeMachine) Resume() error { f.set(StateRunning); return nil }
func (f *fakeMachine) Shutdown(context.Context) error {
	if f.obeys {
		f.end("")
	}
	return nil
}
func (f *fakeMachine) end(why string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state != StateExited {
		f.state, f.killed = StateExited, why
		close(f.done)
	}
}
func (f *fakeMachine) Kill(reason string)    { f.end(reason) }
func (f *fakeMachine) Done() <-chan struct{} { f.asked.Add(1); return f.done }
func (f *fakeMachine) Console() *Hub         { return f.hub }

// Dial connects to an echo at port 7, and at port 9 to one who says nothing and
// never ends; nobody listens elsewhere.
func (f *fakeMachine) Dial(_ context.Context, port uint32) (net.Conn, error) {
	switch port {
	case 7:
	case 9:
		a, _ := net.Pipe()
		return silentGuest{a}, nil
	default:
		return nil, fmt.Errorf("vsock port %d: connection refused", port)
	}
	a, b := net.Pipe()
	go func() { _, _ = io.Copy(b, b); b.Close() }()
	return a, nil
}

type silentGuest struct{ net.Conn }

func (silentGuest) CloseWrite() error { return nil }

func serve(t *testing.T, m Machine, extra Extra) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), SocketFile)
	s, err := Serve(path, m, extra)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return NewClient("fake", path)
}

func TestCommandsTakeTurns(t *testing.T) {
	c := serve(t, newFake(), Extra{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := c.Pause(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	r, err := c.Machine(t.Context())
	if err != nil || r.State != StatePaused {
		t.Fatalf("%+v, %v", r, err)
	}
}

func TestStopOfAGuestThatObeys(t *testing.T) {
	f := newFake()
	f.obeys = true
	if err := serve(t, f, Extra{}).Stop(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if f.killed != "" {
		t.Fatalf("killed: %s", f.killed)
	}
}

func TestStopOfAGuestThatDoesNot(t *testing.T) {
	f := newFake()
	if err := serve(t, f, Extra{}).Stop(t.Context(), 10*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(f.killed, "did not shut down") {
		t.Fatalf("reason %q", f.killed)
	}
}

func TestVsockStream(t *testing.T) {
	c := serve(t, newFake(), Extra{})
	conn, err := c.Dial(t.Context(), 7)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go io.WriteString(conn, "through the glass")
	b := make([]byte, 17)
	if _, err := io.ReadFull(conn, b); err != nil || string(b) != "through the glass" {
		t.Fatalf("%q, %v", b, err)
	}
	if _, err := c.Dial(t.Context(), 8); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Fatalf("dial where nobody listens: %v", err)
	}
}

// A client that is gone and a guest that has ended without a word must not keep
// the machine's process.
func TestCloseWithASilentGuest(t *testing.T) {
	path := filepath.Join(t.TempDir(), SocketFile)
	s, err := Serve(path, newFake(), Extra{})
	if err != nil {
		t.Fatal(err)
	}
	for _, hangUp := range []bool{true, false} {
		conn, err := NewClient("fake", path).Dial(t.Context(), 9)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if hangUp {
			conn.Close()
		}
	}
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the server does not close")
	}
}

func TestConsoleIsShared(t *testing.T) {
	f := newFake()
	c := serve(t, f, Extra{})
	f.hub.Write([]byte("login: "))
	var users []net.Conn
	for range 2 {
		u, err := c.Console(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		users = append(users, u)
		b := make([]byte, 7)
		if _, err := io.ReadFull(u, b); err != nil || string(b) != "login: " {
			t.Fatalf("%q, %v", b, err)
		}
	}
	go io.WriteString(users[0], "root\n")
	b := make([]byte, 5)
	if _, err := io.ReadFull(f.hub.Input(), b); err != nil || string(b) != "root\n" {
		t.Fatalf("typed %q, %v", b, err)
	}
	f.hub.Write([]byte("# "))
	for _, u := range users {
		if _, err := io.ReadFull(u, b[:2]); err != nil || string(b[:2]) != "# " {
			t.Fatalf("%q, %v", b[:2], err)
		}
	}
}

func TestSlowConsoleUserLosesOutputAndIsTold(t *testing.T) {
	h := NewHub()
	u := h.Join()
	for range 3 * userBuffer / 4096 {
		h.Write(make([]byte, 4096))
	}
	h.Close()
	b, err := io.ReadAll(u)
	if err != nil || len(b) > userBuffer+len(droppedNote) || !strings.Contains(string(b), "dropped") {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
}

func TestExtraHandlers(t *testing.T) {
	c := serve(t, newFake(), Extra{
		Inspect: map[string]http.Handler{"queues": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			reply(w, r.URL.Query().Get("of"))
		})},
		Stream: map[string]func(context.Context, *http.Request, net.Conn) error{
			"trace": func(_ context.Context, _ *http.Request, conn net.Conn) error {
				_, err := io.WriteString(conn, "event\n")
				return err
			}},
	})
	var got string
	if err := c.Inspect(t.Context(), "queues", map[string][]string{"of": {"blk0"}}, &got); err != nil || got != "blk0" {
		t.Fatalf("%q, %v", got, err)
	}
	if err := c.Inspect(t.Context(), "nothing", nil, &got); err == nil {
		t.Fatal("inspected what is not there")
	}
	conn, err := c.Stream(t.Context(), "trace", nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(conn); err != nil || string(b) != "event\n" {
		t.Fatalf("%q, %v", b, err)
	}
}

// FuzzRequest sends bytes to the socket: whatever they are, the next client is
// served.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"GET /v1/machine HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /v1/stop?time=-1s HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /v1/vsock/99999999999 HTTP/1.1\r\nHost: x\r\nUpgrade: vitrine-stream\r\n\r\n",
		"GET /v1/console HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: vitrine-stream\r\n\r\nhello",
		"\x00\xff\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	path := filepath.Join(f.TempDir(), SocketFile)
	m := newFake()
	go io.Copy(io.Discard, m.hub.Input())
	s, err := Serve(path, m, Extra{})
	if err != nil {
		f.Fatal(err)
	}
	defer s.Close()
	c := NewClient("fake", path)
	f.Fuzz(func(t *testing.T, b []byte) {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write(b)
		_ = conn.Close()
		if _, err := c.Machine(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestLongSocketPaths(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 40))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, SocketFile)
	s, err := Serve(path, newFake(), Extra{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := NewClient("fake", path).Machine(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestWaitGetsAnAnswerFromAServerThatCloses(t *testing.T) {
	f := newFake()
	path := filepath.Join(t.TempDir(), SocketFile)
	s, err := Serve(path, f, Extra{})
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan Record, 1)
	go func() {
		r, err := NewClient("fake", path).Wait(t.Context())
		if err != nil {
			t.Error(err)
		}
		got <- r
	}()
	for f.asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	f.end("done with it")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if r := <-got; r.Reason != "done with it" {
		t.Fatalf("%+v", r)
	}
}

// A machine that hangs is one whose socket takes connections and never answers.
func TestAHungMachineIsNotWaitedForForEver(t *testing.T) {
	path := filepath.Join(t.TempDir(), SocketFile)
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := NewClient("fake", path).Machine(ctx); !errors.Is(err, ErrNoAnswer) {
		t.Fatalf("%v", err)
	}
	if _, err := NewClient("fake", path).Dial(ctx, 7); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, ErrNoAnswer) {
		t.Fatalf("%v", err)
	}
}
