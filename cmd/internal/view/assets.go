package view

import (
	"embed"
	"io/fs"
	"net/http"
	"path"
	"strings"
)

// web is what the browser gets: no part of a page comes from elsewhere.
//
//go:embed web
var web embed.FS

// serveIndex serves the page, with a nonce for the style elements that the
// terminal makes.
func (s *Server) serveIndex(w http.ResponseWriter, r *http.Request) {
	page, err := web.ReadFile("web/index.html")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	nonce := newSecret()
	w.Header().Set("Content-Security-Policy", strings.Replace(policy, "%", nonce, 1))
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write([]byte(strings.Replace(string(page), "{{nonce}}", nonce, 1)))
}

// types are what the files of the page are: the host's own table of types may
// say anything.
var types = map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
	".mjs": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}

func serveAsset(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("file")
	b, err := fs.ReadFile(web, "web/"+name)
	kind := types[path.Ext(name)]
	if err != nil || kind == "" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(b)
}
