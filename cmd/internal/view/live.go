package view

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/coder/websocket"

	"github.com/vitrine-vmm/vitrine/vmm/control"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
	"github.com/vitrine-vmm/vitrine/vmm/trace/decode"
)

var emptyMeta trace.Meta

// wish is what a page says it wants to see.
type wish struct {
	Filter string `json:"filter"` // of the events (docs/trace.md)
	Lines  bool   `json:"lines"`  // whether it shows events at all now
}

// message is what a page gets several times a second.
type message struct {
	state
	Functions []string      `json:"functions,omitempty"` // at each CPU's RIP; "" where unknown
	Meta      *trace.Meta   `json:"meta,omitempty"`      // when the trace has begun anew
	Input     bool          `json:"input"`               // the console takes what is typed here
	Counts    *counts       `json:"counts,omitempty"`
	Events    *tick         `json:"events,omitempty"`
	Filter    *filterAnswer `json:"filter,omitempty"` // to a wish
}

// filterAnswer says of a filter what is wrong with it: "" is nothing, and then
// it holds from now on.
type filterAnswer struct {
	Text  string `json:"text"`
	Error string `json:"error"`
}

// maxWish bounds what a page says.
const maxWish = 8 << 10

// serveLive tells a page what happens, over a WebSocket, until it leaves.
func (s *Server) serveLive(w http.ResponseWriter, r *http.Request) {
	watch, err := s.watch.get(r.PathValue("name"))
	if err != nil {
		refuse(w, err)
		return
	}
	defer s.watch.put(watch)
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{OriginPatterns: []string{r.Host}})
	if err != nil {
		return // Accept has answered
	}
	defer conn.CloseNow()
	conn.SetReadLimit(maxWish)
	p := &page{server: s, watch: watch, conn: conn, wishes: make(chan wish, 1)}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go func() {
		defer cancel()
		p.listen(ctx)
	}()
	p.tell(ctx)
}

// page is a browser's page that shows a machine.
type page struct {
	server *Server
	watch  *watch
	conn   *websocket.Conn
	wishes chan wish

	wish   wish
	filter *decode.Filter
	answer *filterAnswer // to be told
	follow *follower
	known  *store // whose meta the page has
	pages  int    // what the page has of the state's
	line   *timeline
	stats  *control.Stats
}

// listen takes the page's wishes until it leaves.
func (p *page) listen(ctx context.Context) {
	for {
		_, b, err := p.conn.Read(ctx)
		if err != nil {
			return
		}
		var want wish
		if json.Unmarshal(b, &want) != nil {
			_ = p.conn.Close(websocket.StatusUnsupportedData, "no wish")
			return
		}
		select {
		case p.wishes <- want:
		case <-ctx.Done():
			return
		}
	}
}

// writeTime is how long a page may take to read a message.
const writeTime = 20 * time.Second

// tell sends the page a message each time there is something new.
func (p *page) tell(ctx context.Context) {
	for {
		st, events, wake := p.watch.now()
		b, err := json.Marshal(p.message(st, events))
		if err != nil {
			return
		}
		writing, cancel := context.WithTimeout(ctx, writeTime)
		err = p.conn.Write(writing, websocket.MessageText, b)
		cancel()
		if err != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-p.watch.ended:
			_ = p.conn.Close(websocket.StatusGoingAway, "the machine has ended")
			return
		case want := <-p.wishes:
			p.want(want)
		case <-wake:
		}
	}
}

func (p *page) want(w wish) {
	var filter *decode.Filter
	p.answer = &filterAnswer{Text: w.Filter}
	if w.Filter != "" {
		f, err := decode.ParseFilter(w.Filter)
		if err != nil {
			p.answer.Error = err.Error()
		}
		filter = f
	}
	if p.answer.Error != "" {
		w.Filter, filter = p.wish.Filter, p.filter // the old one stays
	}
	if w.Filter != p.wish.Filter || !p.wish.Lines {
		p.follow = nil
	}
	p.wish, p.filter = w, filter
}

// message is what has changed since the one before.
func (p *page) message(st state, events *store) *message {
	m := &message{state: st, Filter: p.answer, Input: st.Record.Detached && len(st.Record.Command) == 0}
	p.answer = nil
	m.Record.Config, m.Record.Leftovers = nil, nil
	if st.pages == p.pages {
		m.Pages = nil
	}
	if st.Line == p.line {
		m.Line = nil
	}
	if st.Stats == p.stats {
		m.Stats = nil
	}
	p.pages, p.line, p.stats = st.pages, st.Line, st.Stats
	if table := p.watch.functions(); table != nil && st.Glance != nil {
		for _, c := range st.Glance.CPUs {
			m.Functions = append(m.Functions, table.Name(uint64(c.RIP)))
		}
	}
	if events == nil {
		return m
	}
	if p.known != events {
		p.known, p.follow, m.Meta = events, nil, &events.meta
	}
	if p.follow == nil {
		p.follow = newFollower(events, p.watch.functions(), p.filter)
	}
	c := events.counted()
	m.Counts = &c
	if p.wish.Lines {
		t := p.follow.tick()
		m.Events = &t
	}
	return m
}

// serveConsole joins a machine's console to a terminal in the page.
func (s *Server) serveConsole(w http.ResponseWriter, r *http.Request) {
	c, err := s.client(r.PathValue("name"))
	if err != nil {
		refuse(w, err)
		return
	}
	rec, err := c.Machine(r.Context())
	if err != nil {
		refuse(w, err)
		return
	}
	guest, err := c.Console(r.Context())
	if err != nil {
		refuse(w, err)
		return
	}
	defer guest.Close()
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{OriginPatterns: []string{r.Host}})
	if err != nil {
		return
	}
	defer conn.CloseNow()
	// A machine that has a terminal of its own, or runs a command, takes no
	// input from others.
	joinConsole(r.Context(), websocket.NetConn(r.Context(), conn, websocket.MessageBinary), guest, rec.Detached && len(rec.Command) == 0)
	_ = conn.Close(websocket.StatusNormalClosure, "the console has ended")
}

// joinConsole returns when either side has ended.
func joinConsole(ctx context.Context, browser, guest net.Conn, input bool) {
	ended := make(chan struct{}, 2)
	go func() {
		_, _ = io.Copy(browser, guest)
		ended <- struct{}{}
	}()
	go func() {
		var to io.Writer = guest
		if !input {
			to = io.Discard
		}
		_, _ = io.Copy(to, browser)
		ended <- struct{}{}
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
}
