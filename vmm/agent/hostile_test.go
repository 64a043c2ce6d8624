package agent

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// guest returns a client whose guest says what it likes.
func hostileGuest(says []byte) *Client {
	return New(func(context.Context) (net.Conn, error) {
		host, guest := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, guest) }()
		go func() {
			_, _ = guest.Write(says)
			_ = guest.Close()
		}()
		return host, nil
	})
}

// Whatever a guest says, requests end, with an error or a plausible answer.
func FuzzGuest(f *testing.F) {
	frames := func(list ...any) (b []byte) {
		for i := 0; i < len(list); i += 2 {
			b = appendFrame(b, list[i].(frameType), []byte(list[i+1].(string)))
		}
		return b
	}
	f.Add(frames(outStarted, "\x01\x00\x00\x00", outStdout, "text", outStderr, "", outExit, "\x07\x00\x00\x00\x00\x00\x00\x00"))
	f.Add(frames(outStarted, "\x01\x00\x00\x00", outWindow, "\xff\xff\xff\xff"))
	f.Add(frames(outError, "\x02\x00\x00\x00path"))
	f.Add(frames(outEntry, strings.Repeat("\x00", 28)+"\x01\x00a\x00\x00", outData, "data", outEnd, ""))
	f.Add(frames(outOK, strings.Repeat("\x01", 40)))
	f.Add([]byte("\x40\x00\x00\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, says []byte) {
		c := hostileGuest(says)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		status, err := c.Exec(ctx, &Command{Args: []string{"x"}, Stdin: strings.NewReader("input")})
		if err == nil && (status.Code < 0 || status.Code > 255 || status.Signal < 0 || status.Signal > 64) {
			t.Errorf("status %+v", status)
		}
		var content bytes.Buffer
		if info, err := c.Get(ctx, "x", &content); err == nil && info.Size < 0 {
			t.Errorf("%+v", info)
		}
		if content.Len() > len(says) {
			t.Errorf("%d bytes came from %d", content.Len(), len(says))
		}
		_ = c.List(ctx, "x", func(File) error { return nil })
		_ = c.Put(ctx, "x", strings.NewReader("content"), PutOptions{})
		_, _ = c.Ping(ctx)
		if ctx.Err() != nil {
			t.Error("a request did not end")
		}
	})
}

// rawAgent runs init and returns a connection to it, and what it ends with.
func rawAgent(t *testing.T) (net.Conn, func() error) {
	t.Helper()
	var cmd *exec.Cmd
	c := newClient(t)
	c.started = func(k *exec.Cmd) { cmd = k }
	conn, err := c.dial(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return conn, cmd.Wait
}

// exchange sends raw bytes and returns the answer's frames.
func exchange(t *testing.T, raw []byte) (types []frameType, last []byte) {
	t.Helper()
	conn, wait := rawAgent(t)
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = conn.Write(raw)
	_ = conn.(*net.UnixConn).CloseWrite()
	buf := make([]byte, maxPayload)
	for {
		kind, p, err := readFrame(conn, buf)
		if err != nil {
			break
		}
		types, last = append(types, kind), bytes.Clone(p)
	}
	_ = conn.Close()
	var exit *exec.ExitError
	if err := wait(); errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled() {
		t.Fatalf("%x ended the agent: %v", raw[:min(len(raw), 64)], err)
	}
	return types, last
}

// Requests cut short anywhere are refused.
func TestTruncatedRequests(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the agent some hundred times")
	}
	clock := &encoder{}
	clock.u8(cfgClock)
	clock.u64(1)
	path := &encoder{}
	path.str("/nonexistent")
	requests := map[frameType]*encoder{
		reqExec:      (&Command{Args: []string{"/nonexistent"}, Env: []string{"A=b"}, Dir: "/"}).encode(),
		reqPut:       (&PutOptions{}).encode(putFile, "/nonexistent/x", ""),
		reqGet:       path,
		reqList:      path,
		reqStat:      path,
		reqShutdown:  {},
		reqConfigure: clock,
	}
	for kind, e := range requests {
		whole, err := e.bytes()
		if err != nil {
			t.Fatal(err)
		}
		for n := range len(whole) {
			if kind == reqConfigure && n == 0 {
				continue // no settings: nothing to refuse
			}
			types, last := exchange(t, appendFrame(nil, kind, whole[:n]))
			if len(types) != 1 || types[0] != outError || binary.LittleEndian.Uint32(last) == 0 {
				t.Errorf("request %#x of %d bytes cut to %d: %v %q", kind, len(whole), n, types, last)
			}
		}
	}
}

func TestHostileFrames(t *testing.T) {
	run, err := (&Command{Args: []string{"/bin/cat"}, Env: []string{}}).encode().bytes()
	if err != nil {
		t.Fatal(err)
	}
	started := appendFrame(nil, reqExec, run)
	flood := bytes.Clone(started)
	stuck, err := (&Command{Args: []string{"/bin/sleep", "100"}}).encode().bytes()
	if err != nil {
		t.Fatal(err)
	}
	overrun := appendFrame(nil, reqExec, stuck)
	for range 4 {
		overrun = appendFrame(overrun, inStdin, make([]byte, maxPayload))
	}
	many := &encoder{}
	many.u32(0)
	many.u32(0)
	many.u64(0)
	many.str("")
	many.u16(0xffff) // arguments
	for name, test := range map[string]struct {
		raw  []byte
		want frameType // of the last frame; 0: the connection just ends
	}{
		"a frame that is too long":      {[]byte{2, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, 0},
		"an unknown request":            {appendFrame(nil, 0x7777, nil), outError},
		"a reply as a request":          {appendFrame(nil, outOK, nil), outError},
		"data without a request":        {appendFrame(nil, inData, []byte("x")), outError},
		"an unknown frame during exec":  {appendFrame(flood, 0x99, nil), outError},
		"more input than the window":    {overrun, outError},
		"65,535 arguments that are not": {appendFrame(nil, reqExec, many.b), outError},
		"a signal that is none":         {appendFrame(appendFrame(bytes.Clone(started), inSignal, []byte{0xff, 0xff, 0xff, 0xff}), 0x99, nil), outError},
		"half a header":                 {[]byte{1, 0, 0}, 0},
	} {
		types, last := exchange(t, test.raw)
		var got frameType
		if len(types) > 0 {
			got = types[len(types)-1]
		}
		if got != test.want {
			t.Errorf("%s: %#x %q, want %#x at the end", name, types, last, test.want)
		}
	}
}
