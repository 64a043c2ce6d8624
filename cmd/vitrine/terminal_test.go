package main

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/iotest"
)

// typed is what the guest gets of what was typed, and how it ends.
func typed(text string, detach bool) (got, help string, err error) {
	var h bytes.Buffer
	k := &keys{r: iotest.OneByteReader(strings.NewReader(text)), help: &h, detach: detach}
	b, err := io.ReadAll(k)
	return string(b), h.String(), err
}

func TestKeys(t *testing.T) {
	for _, c := range []struct {
		text   string
		detach bool
		got    string
		err    error
	}{
		{"ls\r", false, "ls\r", nil},
		{"a\x01xb", false, "a", errEnd},
		{"a\x01\x01b", false, "a\x01b", nil},
		{"a\x01qb", false, "ab", nil},
		{"a\x01db", false, "ab", nil},
		{"a\x01db", true, "a", errDetach},
		{"a\x01xb", true, "ab", nil},
		{"a\x01", false, "a", nil},
	} {
		if got, _, err := typed(c.text, c.detach); got != c.got || !errors.Is(err, c.err) {
			t.Errorf("%q: %q, %v, want %q, %v", c.text, got, err, c.got, c.err)
		}
	}
	if got, help, _ := typed("a\x01hb", false); got != "ab" || help != keyHelpText {
		t.Errorf("help: %q, %q", got, help)
	}
	if _, help, _ := typed("a\x01hb", true); help != keyHelpVisitor {
		t.Errorf("help for visitors: %q", help)
	}
}

func TestKeysInOneRead(t *testing.T) {
	k := &keys{r: strings.NewReader("abc\x01xdef")}
	if b, err := io.ReadAll(k); string(b) != "abc" || !errors.Is(err, errEnd) {
		t.Errorf("%q, %v", b, err)
	}
	if n, err := k.Read(make([]byte, 4)); n != 0 || !errors.Is(err, errEnd) {
		t.Errorf("afterwards: %d, %v", n, err)
	}
}

func TestInputGoesFromOneGuestToTheNext(t *testing.T) {
	r, w := io.Pipe()
	in := newInput(r)
	first := in.attach()
	go w.Write([]byte("one"))
	p := make([]byte, 2)
	if n, err := first.Read(p); n != 2 || err != nil || string(p) != "on" {
		t.Fatalf("%q, %v", p[:n], err)
	}
	first.Close()
	first.Close()
	second := in.attach()
	if n, err := second.Read(p); string(p[:n]) != "e" || err != nil {
		t.Fatalf("%q, %v", p[:n], err)
	}
	waiting := make(chan error)
	go func() {
		_, err := second.Read(make([]byte, 1))
		waiting <- err
	}()
	second.Close()
	if err := <-waiting; err != io.EOF {
		t.Errorf("a read that waits: %v", err)
	}
	third := in.attach()
	go func() { w.Write([]byte("three")); w.Close() }()
	if b, err := io.ReadAll(third); string(b) != "three" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	broken := newInput(iotest.ErrReader(errEnd)).attach()
	if _, err := broken.Read(p); !errors.Is(err, errEnd) {
		t.Errorf("error: %v", err)
	}
}

func TestMessagesInRawMode(t *testing.T) {
	var b bytes.Buffer
	raw := false
	m := &messages{w: &b, raw: func() bool { return raw }}
	m.say("one %d", 1)
	raw = true
	m.say("two\nlines")
	if want := "vitrine: one 1\n\r\nvitrine: two\r\nlines\r\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}

func TestLogRecordsAreOneLine(t *testing.T) {
	var b bytes.Buffer
	log := (&messages{w: &b}).logger(slog.LevelWarn)
	log.Info("not shown")
	log.With("device", "net0").WithGroup("peer").Warn("closed", "error", io.ErrClosedPipe)
	if want := "vitrine: closed, device: net0, peer.error: io: read/write on closed pipe\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}
