package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Server serves a machine's control socket.
type Server struct {
	m     Machine
	extra atomic.Pointer[http.Handler] // what SetExtra was given
	http  *http.Server
	ln    net.Listener
	turn  sync.Mutex // one command that changes the machine at a time
	conns sync.WaitGroup
	ctx   context.Context
	stop  context.CancelFunc
}

// headerTimeout bounds how long a client may take to say what it wants.
const headerTimeout = 10 * time.Second

// maxHeader bounds what it may say.
const maxHeader = 16 << 10

// Serve begins to serve m at the UNIX socket path, which only the user may
// connect to.
func Serve(path string, m Machine, extra Extra) (*Server, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	ln, err := listen(path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("control socket: %w", err), ln.Close())
	}
	s := &Server{m: m, ln: ln}
	s.SetExtra(extra)
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.http = &http.Server{Handler: s.routes(), ReadHeaderTimeout: headerTimeout, MaxHeaderBytes: maxHeader}
	go func() { _ = s.http.Serve(ln) }()
	return s, nil
}

// lastWords is how long the answers may take that are on their way when the
// server is closed.
const lastWords = 500 * time.Millisecond

// Close ends the server and every stream. The machine must have ended, or be
// about to.
func (s *Server) Close() error {
	s.stop()
	ctx, cancel := context.WithTimeout(context.Background(), lastWords)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = s.http.Close()
	}
	s.conns.Wait()
	return err
}

// SetExtra replaces the handlers of the other parts: when a guest reboots, they
// get a new machine to look at. Streams that are open go on.
func (s *Server) SetExtra(extra Extra) {
	var h http.Handler = s.extraRoutes(extra)
	s.extra.Store(&h)
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pathMachine, func(w http.ResponseWriter, r *http.Request) { reply(w, s.m.Record()) })
	mux.HandleFunc("GET "+pathWait, s.serveWait)
	mux.HandleFunc("GET "+pathStats, func(w http.ResponseWriter, r *http.Request) {
		st, err := s.m.Stats()
		if err != nil {
			fail(w, err)
			return
		}
		reply(w, st)
	})
	mux.HandleFunc("POST "+pathPause, s.change(func(r *http.Request) error { return s.m.Pause(r.Context()) }))
	mux.HandleFunc("POST "+pathResume, s.change(func(r *http.Request) error { return s.m.Resume() }))
	mux.HandleFunc("POST "+pathKill, func(w http.ResponseWriter, r *http.Request) {
		s.m.Kill("killed by vitrine kill") // not in turn: it must work when another command hangs
		reply(w, struct{}{})
	})
	mux.HandleFunc("POST "+pathStop, s.serveStop)
	mux.HandleFunc("GET "+pathVsock+"{port}", s.serveVsock)
	mux.HandleFunc("GET "+pathConsole, s.serveConsole)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { (*s.extra.Load()).ServeHTTP(w, r) })
	return mux
}

func (s *Server) extraRoutes(extra Extra) http.Handler {
	mux := http.NewServeMux()
	for name, h := range extra.Inspect {
		mux.Handle("GET "+pathView+name, h)
	}
	for name, h := range extra.Action {
		mux.HandleFunc("POST "+pathAction+name, func(w http.ResponseWriter, r *http.Request) {
			s.turn.Lock()
			defer s.turn.Unlock()
			h.ServeHTTP(w, r)
		})
	}
	for name, f := range extra.Stream {
		mux.HandleFunc("GET "+pathStream+name, func(w http.ResponseWriter, r *http.Request) {
			s.upgrade(w, r, func(conn net.Conn) { _ = f(s.ctx, r, conn) })
		})
	}
	return mux
}

// serveWait answers when the machine has ended.
func (s *Server) serveWait(w http.ResponseWriter, r *http.Request) {
	select {
	case <-s.m.Done():
		reply(w, s.m.Record())
	case <-r.Context().Done():
	}
}

// change runs a command that changes the machine, in turn.
func (s *Server) change(f func(*http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.turn.Lock()
		defer s.turn.Unlock()
		if err := f(r); err != nil {
			fail(w, err)
			return
		}
		reply(w, s.m.Record())
	}
}

// serveStop asks the guest to shut down, and ends the machine when it has not
// by the time given.
func (s *Server) serveStop(w http.ResponseWriter, r *http.Request) {
	grace, err := time.ParseDuration(r.URL.Query().Get("time"))
	if err != nil || grace < 0 {
		http.Error(w, "time: want a duration such as 10s", http.StatusBadRequest)
		return
	}
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.m.Record().State == StatePaused {
		_ = s.m.Resume() // a paused guest cannot shut down
	}
	ctx, cancel := context.WithTimeout(r.Context(), grace)
	defer cancel()
	if err := s.m.Shutdown(ctx); err != nil && ctx.Err() == nil {
		s.m.Kill("stopped: the guest could not be asked to shut down: " + err.Error())
	}
	select {
	case <-s.m.Done():
	case <-ctx.Done():
		if r.Context().Err() != nil {
			return // the client is gone, and with it its wish to kill
		}
		s.m.Kill(fmt.Sprintf("stopped: the guest did not shut down within %v", grace))
		<-s.m.Done()
	}
	reply(w, s.m.Record())
}

func (s *Server) serveVsock(w http.ResponseWriter, r *http.Request) {
	port, err := strconv.ParseUint(r.PathValue("port"), 10, 32)
	if err != nil {
		http.Error(w, "port: want a number", http.StatusBadRequest)
		return
	}
	guest, err := s.m.Dial(r.Context(), uint32(port))
	if err != nil {
		fail(w, err)
		return
	}
	defer guest.Close()
	// A guest that is gone closes nothing any more.
	stop := context.AfterFunc(s.ctx, func() { _ = guest.Close() })
	defer stop()
	s.upgrade(w, r, func(conn net.Conn) { join(conn, guest) })
}

func (s *Server) serveConsole(w http.ResponseWriter, r *http.Request) {
	hub := s.m.Console()
	if hub == nil {
		fail(w, errors.New("the machine's console is elsewhere (--console)"))
		return
	}
	s.upgrade(w, r, func(conn net.Conn) {
		user := hub.Join()
		defer user.Close()
		join(conn, user)
	})
}

// join copies both ways until both directions have ended, or the first side is
// gone.
func join(conn net.Conn, other io.ReadWriteCloser) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(other, conn)
		if c, ok := other.(interface{ CloseWrite() error }); ok {
			_ = c.CloseWrite()
			return
		}
		_ = other.Close()
	}()
	_, _ = io.Copy(conn, other)
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
	<-done
}

// upgrade turns the request's connection into a stream and hands it to f.
func (s *Server) upgrade(w http.ResponseWriter, r *http.Request, f func(net.Conn)) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), upgradeTo) {
		http.Error(w, "this is a stream: ask with Connection: Upgrade and Upgrade: "+upgradeTo, http.StatusUpgradeRequired)
		return
	}
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		fail(w, err)
		return
	}
	s.conns.Add(1)
	defer s.conns.Done()
	defer conn.Close()
	stop := context.AfterFunc(s.ctx, func() { _ = conn.Close() })
	defer stop()
	_ = conn.SetDeadline(time.Time{})
	head := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + upgradeTo + "\r\n\r\n"
	if _, err := io.WriteString(conn, head); err != nil {
		return
	}
	f(&bufferedConn{Conn: conn, r: buf.Reader})
}

// bufferedConn is a connection of which a little has been read ahead.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

func (c *bufferedConn) CloseWrite() error {
	if u, ok := c.Conn.(*net.UnixConn); ok {
		return u.CloseWrite()
	}
	return nil
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", jsonType)
	_ = json.NewEncoder(w).Encode(v)
}

// fail answers with an error in one line of text.
func fail(w http.ResponseWriter, err error) {
	http.Error(w, err.Error(), http.StatusConflict)
}
