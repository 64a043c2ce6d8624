package view

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/control"
	"github.com/vitrine-vmm/vitrine/vmm/symbols"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
)

// watches are the machines that somebody looks at. Any number of pages share
// one look at a machine.
type watches struct {
	server *Server
	mu     sync.Mutex
	open   map[string]*watch
}

// How often a machine is asked: several times a second for what moves, once for
// what takes longer to find out.
const (
	glanceEvery = 250 * time.Millisecond
	statsEvery  = time.Second
	askTime     = 2 * time.Second
	// A look goes on a little when its last page is gone: a page that is loaded
	// again finds its past.
	linger = 10 * time.Second
)

// streamEvents is how many events each source of the machine's keeps for us,
// who read it a hundred times a second.
const streamEvents = 1 << 15

// get joins the look at a machine, or begins it. Every get needs a put.
func (ws *watches) get(name string) (*watch, error) {
	client, err := ws.server.client(name)
	if err != nil {
		return nil, err
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.open == nil {
		ws.open = make(map[string]*watch)
	}
	w := ws.open[name]
	if w == nil || w.over() {
		w = &watch{name: name, client: client, symbols: ws.server.opt.Symbols, wake: make(chan struct{})}
		ctx, end := context.WithCancel(context.Background())
		w.end, w.ended = end, ctx.Done()
		w.alive = func() bool {
			r, err := ws.server.opt.Dir.Find(name)
			return err == nil && r.Alive()
		}
		context.AfterFunc(ctx, func() { ws.forget(w) })
		ws.open[name] = w
		w.start(ctx)
	}
	w.users++
	return w, nil
}

func (ws *watches) put(w *watch) {
	time.AfterFunc(linger, func() {
		ws.mu.Lock()
		defer ws.mu.Unlock()
		if w.users--; w.users == 0 {
			w.end()
		}
	})
}

// forget makes room for another machine of that name.
func (ws *watches) forget(w *watch) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.open[w.name] == w {
		delete(ws.open, w.name)
	}
}

func (ws *watches) close() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for _, w := range ws.open {
		w.end()
	}
	ws.open = nil
}

// watch is a look at one machine.
type watch struct {
	name    string
	client  *control.Client
	symbols func(machine string) *symbols.Table
	users   int             // guarded by watches.mu
	ended   <-chan struct{} // closed when nobody looks any more, or the machine has ended
	end     context.CancelFunc
	alive   func() bool // whether the machine's process is there

	mu    sync.Mutex
	state state
	table *symbols.Table // of the guest's kernel; nil where there is none
	store *store         // nil before the trace begins
	wake  chan struct{}  // closed when there is a new state
}

// state is what is known of a machine at a moment.
type state struct {
	Record control.Record  `json:"machine"`
	Glance *control.Glance `json:"glance,omitempty"`
	Stats  *control.Stats  `json:"stats,omitempty"`
	Pages  json.RawMessage `json:"pages,omitempty"`
	Line   *timeline       `json:"timeline,omitempty"`
	Error  string          `json:"error,omitempty"` // why something of it is old
	pages  int             // how often Pages has changed
}

func (w *watch) start(ctx context.Context) {
	go w.repeat(ctx, glanceEvery, w.glance)
	go w.repeat(ctx, statsEvery, w.ask)
	go func() {
		w.nameFunctions()
		w.reopen(ctx, w.follow)
	}()
	go w.reopen(ctx, w.followPages)
}

// nameFunctions finds the kernel's symbols, which may take a moment.
func (w *watch) nameFunctions() {
	if w.symbols == nil {
		return
	}
	t := w.symbols(w.name)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.table = t
}

func (w *watch) functions() *symbols.Table {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.table
}

func (w *watch) repeat(ctx context.Context, every time.Duration, f func(context.Context)) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for ctx.Err() == nil {
		asking, cancel := context.WithTimeout(ctx, askTime)
		f(asking)
		cancel()
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// reopen calls f again when it has ended: a guest that reboots ends its
// streams.
func (w *watch) reopen(ctx context.Context, f func(context.Context) error) {
	for ctx.Err() == nil {
		_ = f(ctx)
		select {
		case <-time.After(statsEvery):
		case <-ctx.Done():
		}
	}
}

func (w *watch) update(f func(*state)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(&w.state)
}

func (w *watch) over() bool {
	select {
	case <-w.ended:
		return true
	default:
		return false
	}
}

// glance asks for what moves, and tells the pages. When the machine has ended
// the look has, too.
func (w *watch) glance(ctx context.Context) {
	var g control.Glance
	err := w.client.Inspect(ctx, "glance", nil, &g)
	if err != nil && !w.alive() {
		w.end()
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state.Error = ""
	if err != nil {
		w.state.Error = err.Error()
	} else {
		w.state.Glance = &g
	}
	close(w.wake)
	w.wake = make(chan struct{})
}

// timelineBuckets is how finely the past is counted.
const timelineBuckets = 240

// ask asks for what takes longer.
func (w *watch) ask(ctx context.Context) {
	r, err := w.client.Machine(ctx)
	if err != nil {
		return // glance says so
	}
	st, err := w.client.Stats(ctx)
	line := timeline{Buckets: [][classes]uint32{}}
	if s := w.events(); s != nil {
		line = s.timeline(timelineBuckets)
	}
	w.update(func(s *state) {
		s.Record, s.Line = r, &line
		if err == nil {
			s.Stats = &st
		}
	})
}

// follow reads the machine's trace until it ends.
func (w *watch) follow(ctx context.Context) error {
	conn, err := w.client.Stream(ctx, "trace", url.Values{"events": {strconv.Itoa(streamEvents)}})
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	r, err := trace.NewStreamReader(conn)
	if err != nil {
		return err
	}
	s := newStore(r.Meta)
	w.mu.Lock()
	w.store = s
	w.mu.Unlock()
	return s.read(r)
}

// read adds what a stream has, until its end.
func (s *store) read(r *trace.StreamReader) error {
	var batch []trace.Event
	for {
		e, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if batch = append(batch, e); !r.Ready() {
			s.add(batch)
			batch = batch[:0]
		}
	}
}

// stretches is into how many parts guest memory is drawn.
const stretches = 512

// followPages reads the state of guest memory until the machine ends.
func (w *watch) followPages(ctx context.Context) error {
	conn, err := w.client.Stream(ctx, "pages", url.Values{"stretches": {strconv.Itoa(stretches)}})
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	in := json.NewDecoder(conn)
	for {
		var pages json.RawMessage
		if err := in.Decode(&pages); err != nil {
			return err
		}
		w.update(func(s *state) { s.Pages = pages; s.pages++ })
	}
}

func (w *watch) events() *store {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.store
}

// now is the state, the events, and what is closed when there is a newer one.
func (w *watch) now() (state, *store, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state, w.store, w.wake
}

var errNotShown = errors.New("this view does not show that machine")

// client is a client for a machine that this server shows.
func (s *Server) client(name string) (*control.Client, error) {
	if !s.shows(name) {
		return nil, errNotShown
	}
	return s.opt.Dir.Client(name)
}
