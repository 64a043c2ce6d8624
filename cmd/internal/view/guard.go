package view

import (
	"crypto/subtle"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// guard lets through only the browser that was given the token, and only for
// pages of this server: whoever reaches it can type at the consoles.
type guard struct {
	token   string
	path    string // under which everything is: "/view-…/"
	cookie  string // its name
	address string // HOST:PORT of URLs
	hosts   map[string]bool
	port    string
	anyIP   bool // not on loopback: by whichever address of this host
}

// newGuard makes one for a server that listens at host, which became addr.
func newGuard(host string, addr *net.TCPAddr) guard {
	// A browser sends cookies of a host to all of its ports, so that another
	// program's server on loopback would be handed ours. It sends them only to
	// their path: that is random, and so no other server's.
	g := guard{token: newSecret(), path: "/view-" + newSecret()[:22] + "/", port: strconv.Itoa(addr.Port), hosts: make(map[string]bool)}
	g.cookie = "vitrine-view-" + g.port
	names := []string{host}
	if addr.IP.IsLoopback() {
		names = append(names, addr.IP.String(), "localhost")
	} else {
		g.anyIP = true
	}
	for _, n := range names {
		g.hosts[strings.ToLower(net.JoinHostPort(n, g.port))] = true
	}
	if addr.IP.IsUnspecified() {
		host = "localhost"
		g.hosts[net.JoinHostPort(host, g.port)] = true
	}
	g.address = net.JoinHostPort(host, g.port)
	return g
}

// policy lets a page use what this server sends and nothing else. Style
// elements with the page's nonce are the terminal's own.
const policy = "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-%'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// wrap is h for those who may.
func (g *guard) wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		head := w.Header()
		head.Set("Content-Security-Policy", strings.Replace(policy, "%", "none", 1))
		head.Set("X-Content-Type-Options", "nosniff")
		head.Set("Referrer-Policy", "no-referrer")
		head.Set("Cross-Origin-Opener-Policy", "same-origin")
		head.Set("Cross-Origin-Resource-Policy", "same-origin")
		head.Set("Cache-Control", "no-store")
		switch {
		case !g.knownHost(r.Host):
			http.Error(w, "this server has another name", http.StatusMisdirectedRequest)
		case r.URL.Path == "/" && r.Method == http.MethodGet && g.isToken(r.URL.Query().Get("token")):
			g.admit(w, r)
		case !g.isOurs(r):
			http.Error(w, "refused: the request comes from another site", http.StatusForbidden)
		case !strings.HasPrefix(r.URL.Path, g.path) || !g.authorised(r):
			http.Error(w, "the address that vitrine view printed has a token: open that one", http.StatusUnauthorized)
		default:
			h.ServeHTTP(w, r)
		}
	})
}

// admit gives the browser its cookie in exchange for the token, and takes the
// token out of the address bar.
func (g *guard) admit(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, &http.Cookie{Name: g.cookie, Value: g.token, Path: g.path, HttpOnly: true, SameSite: http.SameSiteStrictMode})
	to := g.path
	if name := r.URL.Query().Get("machine"); name != "" {
		to += "#/m/" + url.PathEscape(name)
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// knownHost refuses names that are not ours: a site can have its own name
// point here (DNS rebinding), but not an IP address.
func (g *guard) knownHost(host string) bool {
	if g.hosts[strings.ToLower(host)] {
		return true
	}
	name, port, err := net.SplitHostPort(host)
	return err == nil && g.anyIP && port == g.port && net.ParseIP(name) != nil
}

// isOurs refuses requests that pages of other origins make: those have an
// Origin, or the browser says so by Sec-Fetch-Site. What changes something must
// say that it comes from us, or have the token in a header, which other pages
// cannot set.
func (g *guard) isOurs(r *http.Request) bool {
	origin, site := r.Header.Get("Origin"), r.Header.Get("Sec-Fetch-Site")
	switch {
	case origin != "":
		return strings.EqualFold(origin, "http://"+r.Host)
	case site != "" && site != "same-origin" && site != "none":
		return false
	case r.Method == http.MethodGet && r.Header.Get("Upgrade") == "":
		return true
	}
	return r.Header.Get("Authorization") != ""
}

func (g *guard) authorised(r *http.Request) bool {
	if t, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return g.isToken(t)
	}
	for _, c := range r.CookiesNamed(g.cookie) {
		if g.isToken(c.Value) {
			return true
		}
	}
	return false
}

func (g *guard) isToken(s string) bool {
	return subtle.ConstantTimeCompare([]byte(s), []byte(g.token)) == 1
}
