package view

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/control"
	"github.com/vitrine-vmm/vitrine/vmm/symbols"
)

// Handler is the whole server: the page, its parts, and what they ask for.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	p := s.guard.path
	mux.HandleFunc("GET "+p+"{$}", s.serveIndex)
	mux.HandleFunc("GET "+p+"web/{file...}", serveAsset)
	mux.HandleFunc("GET "+p+"api/machines", s.serveMachines)
	machine := p + "api/machines/{name}/"
	mux.HandleFunc("GET "+machine+"live", s.serveLive)
	mux.HandleFunc("GET "+machine+"console", s.serveConsole)
	mux.HandleFunc("GET "+machine+"events", s.serveEvents)
	mux.HandleFunc("GET "+machine+"inspect/{what}", s.serveInspect)
	mux.HandleFunc("POST "+machine+"pause", s.change((*control.Client).Pause))
	mux.HandleFunc("POST "+machine+"resume", s.change((*control.Client).Resume))
	mux.HandleFunc("POST "+machine+"step", s.serveStep)
	return s.guard.wrap(mux)
}

// shows says whether the server is for a machine.
func (s *Server) shows(name string) bool {
	return control.CheckName(name) == nil && (len(s.opt.Names) == 0 || slices.Contains(s.opt.Names, name))
}

// machineRow is a machine in the list.
type machineRow struct {
	control.Record
	Alive  bool           `json:"alive"`
	Ending string         `json:"ending,omitempty"` // how it ended
	Stats  *control.Stats `json:"stats,omitempty"`
}

// serveMachines lists the machines, with the counters of those that run.
func (s *Server) serveMachines(w http.ResponseWriter, r *http.Request) {
	list, err := s.opt.Dir.List()
	if err != nil {
		refuse(w, err)
		return
	}
	rows := make([]machineRow, 0, len(list))
	for _, rec := range list {
		if s.shows(rec.Name) {
			rec.Config, rec.Leftovers = nil, nil
			rows = append(rows, machineRow{Record: rec, Alive: rec.Alive()})
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), askTime)
	defer cancel()
	var all sync.WaitGroup
	for i := range rows {
		row := &rows[i]
		if !row.Alive {
			row.Ending = row.Record.Ending()
			continue
		}
		all.Go(func() {
			if c, err := s.client(row.Name); err == nil {
				if st, err := c.Stats(ctx); err == nil {
					row.Stats = &st
				}
			}
		})
	}
	all.Wait()
	reply(w, rows)
}

// change passes a command on.
func (s *Server) change(do func(*control.Client, context.Context) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := s.client(r.PathValue("name"))
		if err == nil {
			err = do(c, r.Context())
		}
		if err != nil {
			refuse(w, err)
			return
		}
		reply(w, struct{}{})
	}
}

// maxBody bounds what a page sends with a command.
const maxBody = 4 << 10

func (s *Server) serveStep(w http.ResponseWriter, r *http.Request) {
	var q control.StepRequest
	in := json.NewDecoder(io.LimitReader(r.Body, maxBody))
	in.DisallowUnknownFields()
	if err := in.Decode(&q); err != nil {
		http.Error(w, "step: "+err.Error(), http.StatusBadRequest)
		return
	}
	c, err := s.client(r.PathValue("name"))
	var a control.StepAnswer
	if err == nil {
		err = c.Action(r.Context(), "step", q, &a)
	}
	if err != nil {
		refuse(w, err)
		return
	}
	reply(w, a)
}

// inspectable are the views that the page shows, and what may be asked of them.
var inspectable = []string{"cpu", "memory", "pagetable", "queues", "pci", "acpi", "irq", "cpuid", "disasm", "glance"}

// inspectTime is how long a view may take: a machine that is paused for it
// must come to rest first.
const inspectTime = 10 * time.Second

func (s *Server) serveInspect(w http.ResponseWriter, r *http.Request) {
	what := r.PathValue("what")
	if !slices.Contains(inspectable, what) {
		http.Error(w, fmt.Sprintf("there is no view %q", what), http.StatusNotFound)
		return
	}
	query := url.Values{}
	for _, k := range []string{"cpu", "addr", "length", "name"} {
		if v := r.URL.Query().Get(k); v != "" {
			query.Set(k, v)
		}
	}
	watch, err := s.watch.get(r.PathValue("name"))
	if err != nil {
		refuse(w, err)
		return
	}
	defer s.watch.put(watch)
	if a, ok := watch.functions().Addr(query.Get("addr")); ok {
		query.Set("addr", fmt.Sprintf("%#x", a)) // a function's name is an address
	}
	ctx, cancel := context.WithTimeout(r.Context(), inspectTime)
	defer cancel()
	var v json.RawMessage
	if err := watch.client.Inspect(ctx, what, query, &v); err != nil {
		refuse(w, err)
		return
	}
	if what == "cpu" {
		v = withFunction(v, watch.functions())
	}
	reply(w, v)
}

// withFunction adds to the view of a CPU which function it is in.
func withFunction(view json.RawMessage, table *symbols.Table) json.RawMessage {
	var v struct {
		Text     string          `json:"text"`
		Data     json.RawMessage `json:"data"`
		Function string          `json:"function"`
	}
	var cpu struct{ Regs struct{ RIP uint64 } }
	if json.Unmarshal(view, &v) != nil || json.Unmarshal(v.Data, &cpu) != nil {
		return view
	}
	v.Function = table.Name(cpu.Regs.RIP)
	b, err := json.Marshal(&v)
	if err != nil {
		return view
	}
	return b
}

// serveEvents serves a page of the past.
func (s *Server) serveEvents(w http.ResponseWriter, r *http.Request) {
	q, err := parsePast(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	watch, err := s.watch.get(r.PathValue("name"))
	if err != nil {
		refuse(w, err)
		return
	}
	defer s.watch.put(watch)
	store := watch.events()
	if store == nil {
		store = newStore(emptyMeta)
	}
	reply(w, store.look(q, watch.functions()))
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// refuse answers with why a machine cannot do something, in one line of text.
func refuse(w http.ResponseWriter, err error) { http.Error(w, err.Error(), http.StatusConflict) }
