// Package view serves machines to a browser: counters, events, registers,
// memory and the console, live, and the buttons to pause, step and resume. It
// speaks to each machine over its control socket and keeps nothing on disk.
package view

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/control"
	"github.com/vitrine-vmm/vitrine/vmm/symbols"
)

// Options are what a Server shows.
type Options struct {
	Dir   *control.Dir
	Names []string // the machines; none: all there are
	// Symbols is what names the functions of a machine's kernel; it may be nil,
	// and return nil.
	Symbols func(machine string) *symbols.Table
}

// Server is a web server for one user.
type Server struct {
	opt   Options
	guard guard
	http  *http.Server
	ln    net.Listener
	watch watches
}

// headerTimeout bounds how long a browser may take to say what it wants, and
// maxHeader what it may say.
const (
	headerTimeout = 10 * time.Second
	maxHeader     = 32 << 10
)

// Listen opens a server at address, "HOST:PORT". Serve must be called.
func Listen(address string, opt Options) (*Server, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("%q: want HOST:PORT: %w", address, err)
	}
	if host == "" {
		return nil, fmt.Errorf("%q: which address of this host? 127.0.0.1%s is for its own programs alone", address, address)
	}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	s := &Server{opt: opt, ln: ln, guard: newGuard(host, ln.Addr().(*net.TCPAddr))}
	s.watch.server = s
	s.http = &http.Server{Handler: s.Handler(), ReadHeaderTimeout: headerTimeout, MaxHeaderBytes: maxHeader}
	return s, nil
}

// URL is the address for a browser, with the token. It opens the machine of
// that name, or with "" the list of machines.
func (s *Server) URL(machine string) string {
	q := url.Values{"token": {s.guard.token}}
	if machine != "" {
		q.Set("machine", machine)
	}
	return "http://" + s.guard.address + "/?" + q.Encode()
}

// Loopback says whether only this host's own programs reach the server.
func (s *Server) Loopback() bool { return s.ln.Addr().(*net.TCPAddr).IP.IsLoopback() }

// Serve serves until ctx is done.
func (s *Server) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.http.Close() })
	defer stop()
	err := s.http.Serve(s.ln)
	s.watch.close()
	if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// newSecret is 256 random bits, as text for URLs.
func newSecret() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand
	return base64.RawURLEncoding.EncodeToString(b[:])
}
