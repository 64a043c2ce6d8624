package view

import (
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

func TestOnlyItsOwnPageGetsIn(t *testing.T) {
	s, _ := testServer(t, nil)
	del := func(name string) func(*http.Request) { return func(r *http.Request) { r.Header.Del(name) } }
	set := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	host := func(h string) func(*http.Request) {
		return func(r *http.Request) { r.Host = h; r.Header.Del("Origin") }
	}
	port := s.guard.port
	for _, c := range []struct {
		what, method, path string
		change             func(*http.Request)
		want               int
	}{
		{"its page", "GET", s.guard.path, nil, 200},
		{"a part of it", "GET", s.guard.path + "web/app.js", nil, 200},
		{"the machines", "GET", s.api(""), nil, 200},
		{"a look without an Origin, as browsers send it", "GET", s.api(""), del("Origin"), 200},
		{"a command", "POST", s.api("/web/pause"), nil, 200},
		{"a program with the token", "POST", s.api("/web/resume"), func(r *http.Request) {
			r.Header = http.Header{"Authorization": {"Bearer " + s.guard.token}}
		}, 200},

		{"no token", "GET", s.guard.path, del("Cookie"), 401},
		{"no token, for a part of the page", "GET", s.guard.path + "web/app.js", del("Cookie"), 401},
		{"no token, for the machines", "GET", s.api(""), del("Cookie"), 401},
		{"another token", "GET", s.api(""), set("Cookie", s.guard.cookie+"="+newSecret()), 401},
		{"an empty token", "GET", s.api(""), set("Cookie", s.guard.cookie+"="), 401},
		{"a wrong token in the header", "GET", s.api(""), set("Authorization", "Bearer x"), 401},
		{"the root", "GET", "/", nil, 401},
		{"a wrong token in the address", "GET", "/?token=" + newSecret(), del("Cookie"), 401},
		{"an empty token in the address", "GET", "/?token=", del("Cookie"), 401},
		{"the right cookie at a wrong path", "GET", "/view-x/api/machines", nil, 401},

		{"another site", "GET", s.api(""), set("Origin", "http://evil.example"), 403},
		{"another port of this host", "GET", s.api(""), set("Origin", "http://127.0.0.1:1"), 403},
		{"a page without an origin", "POST", s.api("/web/pause"), set("Origin", "null"), 403},
		{"a command that does not say where it comes from", "POST", s.api("/web/pause"), del("Origin"), 403},
		{"a stream for another site", "GET", s.api("/web/console"), func(r *http.Request) {
			r.Header.Set("Upgrade", "websocket")
			r.Header.Set("Origin", "http://evil.example")
		}, 403},
		{"a stream without an origin", "GET", s.api("/web/console"), func(r *http.Request) {
			r.Header.Set("Upgrade", "websocket")
			r.Header.Del("Origin")
		}, 403},
		{"a part for another site", "GET", s.guard.path + "web/app.js", func(r *http.Request) {
			r.Header.Del("Origin")
			r.Header.Set("Sec-Fetch-Site", "cross-site")
		}, 403},
		{"a part for another port", "GET", s.guard.path + "web/app.js", func(r *http.Request) {
			r.Header.Del("Origin")
			r.Header.Set("Sec-Fetch-Site", "same-site")
		}, 403},

		{"by its name", "GET", s.api(""), host("localhost:" + port), 200},
		{"another name, as DNS rebinding has it", "GET", s.api(""), host("evil.example:" + port), 421},
		{"a name that begins like ours", "GET", s.api(""), host("127.0.0.1.evil.example:" + port), 421},
		{"another port", "GET", s.api(""), host("127.0.0.1:1"), 421},
		{"no port", "GET", s.api(""), host("127.0.0.1"), 421},
		{"another address", "GET", s.api(""), host("10.0.0.1:" + port), 421},
		{"another name, with the token", "GET", "/?token=" + s.guard.token, host("evil.example:" + port), 421},
	} {
		w := request(s, c.method, c.path, "", c.change)
		if w.Code != c.want {
			t.Errorf("%s: status %d, want %d: %s", c.what, w.Code, c.want, w.Body)
		}
		if strings.Contains(w.Body.String(), s.guard.token) || w.Code >= 400 && strings.Contains(w.Header().Get("Set-Cookie")+w.Header().Get("Location"), s.guard.path) {
			t.Errorf("%s: the answer gives a secret away", c.what)
		}
		for name, want := range map[string]string{"Content-Security-Policy": "default-src 'none'", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"} {
			if got := w.Header().Get(name); !strings.Contains(got, want) || strings.Contains(got, "unsafe") {
				t.Errorf("%s: %s: %q", c.what, name, got)
			}
		}
	}
}

func TestTheTokenBecomesACookie(t *testing.T) {
	s, _ := testServer(t, nil)
	u, err := url.Parse(s.URL("web"))
	if err != nil {
		t.Fatal(err)
	}
	w := request(s, "GET", "/?"+u.RawQuery, "", func(r *http.Request) { r.Header = http.Header{} })
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != s.guard.path+"#/m/web" {
		t.Fatalf("status %d, to %q", w.Code, w.Header().Get("Location"))
	}
	c := w.Result().Cookies()
	if len(c) != 1 || c[0].Value != s.guard.token || !c[0].HttpOnly || c[0].SameSite != http.SameSiteStrictMode || c[0].Path != s.guard.path {
		t.Errorf("cookies %v", c)
	}
	other, _ := testServer(t, nil)
	if other.guard.token == s.guard.token || other.guard.path == s.guard.path {
		t.Error("two servers share a secret")
	}
}

func TestOtherAddressesOnlyWhenAsked(t *testing.T) {
	g := newGuard("127.0.0.1", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80})
	if g.knownHost("192.168.1.5:80") || !g.knownHost("LOCALHOST:80") {
		t.Error("on loopback")
	}
	g = newGuard("::1", &net.TCPAddr{IP: net.IPv6loopback, Port: 80})
	if !g.knownHost("[::1]:80") || g.knownHost("[::2]:80") || g.address != "[::1]:80" {
		t.Error("on loopback, IPv6")
	}
	g = newGuard("0.0.0.0", &net.TCPAddr{IP: net.IPv4zero, Port: 80})
	if !g.knownHost("192.168.1.5:80") || g.knownHost("192.168.1.5:81") || g.knownHost("evil.example:80") || g.address != "localhost:80" {
		t.Error("everywhere")
	}
	g = newGuard("host.example", &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 80})
	if !g.knownHost("host.example:80") || g.knownHost("evil.example:80") {
		t.Error("by a name")
	}
	if _, err := Listen(":0", Options{}); err == nil {
		t.Error("an address without a host: it would be all of them")
	}
}

// external is an address that a browser would fetch.
var external = regexp.MustCompile(`(?i)(https?:)?//[a-z0-9-]+\.[a-z]`)

func TestNothingComesFromElsewhere(t *testing.T) {
	n := 0
	err := fs.WalkDir(web, "web", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(path, "web/vendor/") {
			return err
		}
		b, err := fs.ReadFile(web, path)
		if err != nil {
			return err
		}
		n++
		for _, found := range external.FindAllString(strings.ReplaceAll(string(b), "http://www.w3.org/2000/svg", ""), -1) {
			t.Errorf("%s: %s", path, found)
		}
		return nil
	})
	if err != nil || n < 10 {
		t.Errorf("%d files, %v", n, err)
	}
}
