package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
)

// messages is standard error, for lines of vitrine's own. While the terminal is
// in raw mode a line ends with CR LF, and begins with it, since the guest may
// have left one unfinished.
type messages struct {
	w   io.Writer
	raw func() bool // nil: never

	mu sync.Mutex
}

func (m *messages) say(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	text := "vitrine: " + fmt.Sprintf(format, args...)
	if m.raw != nil && m.raw() {
		fmt.Fprintf(m.w, "\r\n%s\r\n", strings.ReplaceAll(text, "\n", "\r\n"))
		return
	}
	fmt.Fprintln(m.w, text)
}

// logger returns a logger whose records become messages.
func (m *messages) logger(level slog.Level) *slog.Logger {
	return slog.New(&messageHandler{m: m, level: level})
}

// messageHandler writes records as a person would: the message and what it is
// about, in one line.
type messageHandler struct {
	m      *messages
	level  slog.Level
	prefix string // of attributes' names, from WithGroup
	attrs  string
}

func (h *messageHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

func (h *messageHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(r.Message)
	b.WriteString(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		b.WriteString(h.format(a))
		return true
	})
	h.m.say("%s", b.String())
	return nil
}

func (h *messageHandler) format(a slog.Attr) string {
	return fmt.Sprintf(", %s%s: %v", h.prefix, a.Key, a.Value.Resolve())
}

func (h *messageHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	n := *h
	for _, a := range attrs {
		n.attrs += h.format(a)
	}
	return &n
}

func (h *messageHandler) WithGroup(name string) slog.Handler {
	n := *h
	n.prefix += name + "."
	return &n
}
