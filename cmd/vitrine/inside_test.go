package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const (
	insidePage      = "../../docs/inside.md"
	insideRecording = "../../docs/inside/boot.rec"
)

// TestInsideQuotesItsRecording: every line of the trace that docs/inside.md
// shows is one of the recording's, in its order, and the recording can still be
// played.
func TestInsideQuotesItsRecording(t *testing.T) {
	var list, errOut bytes.Buffer
	if status := run(t.Context(), []string{"vitrine", "replay", "--list", insideRecording}, strings.NewReader(""), &list, &errOut); status != 0 {
		t.Fatalf("status %d: %s", status, errOut.String())
	}
	at := make(map[string]int)
	for i, line := range strings.Split(list.String(), "\n") {
		at[strings.TrimSpace(line)] = i
	}
	page, err := os.ReadFile(filepath.FromSlash(insidePage))
	if err != nil {
		t.Fatal(err)
	}
	last, n := -1, 0
	for _, block := range regexp.MustCompile("(?ms)^```trace\n(.*?)^```").FindAllStringSubmatch(string(page), -1) {
		for line := range strings.Lines(block[1]) {
			line = strings.TrimSpace(line)
			i, ok := at[line]
			switch {
			case !ok:
				t.Errorf("not in the recording: %s", line)
			case i <= last:
				t.Errorf("not in the recording's order: %s", line)
			default:
				last = i
			}
			n++
		}
	}
	if n < 30 {
		t.Errorf("%d lines are quoted", n)
	}
	var check bytes.Buffer
	if status := run(t.Context(), []string{"vitrine", "replay", "--check", insideRecording}, strings.NewReader(""), &check, &errOut); status != 0 ||
		!strings.Contains(check.String(), "0 reads and 0 devices differ") {
		t.Errorf("status %d: %s%s", status, check.String(), errOut.String())
	}
}
