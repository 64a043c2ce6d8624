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
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"
)

// ErrNoAnswer is what a call to a machine wraps that did not answer in time.
var ErrNoAnswer = errors.New("does not answer")

// Client speaks to a machine's control socket.
type Client struct {
	name   string
	socket string
	http   *http.Client
}

// Client returns a client for the machine called name, which must live.
func (d *Dir) Client(name string) (*Client, error) {
	r, err := d.Find(name)
	if err != nil {
		return nil, err
	}
	if !r.Alive() {
		return nil, fmt.Errorf("machine %q is not running: %s", name, r.Ending())
	}
	return NewClient(name, d.Socket(name)), nil
}

// Ending says in words how a machine ended.
func (r *Record) Ending() string {
	switch {
	case r.State == StateDead:
		return "dead: " + r.Reason
	case r.Reason != "":
		return "ended: " + r.Reason
	}
	return string(r.State)
}

// NewClient returns a client for the control socket at the path socket. name
// is for messages.
func NewClient(name, socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, socket) }
	return &Client{name: name, socket: socket,
		http: &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// Machine returns the record as the machine itself has it.
func (c *Client) Machine(ctx context.Context) (r Record, err error) {
	err = c.call(ctx, http.MethodGet, pathMachine, nil, &r)
	return r, err
}

// Stats returns the machine's counters.
func (c *Client) Stats(ctx context.Context) (st Stats, err error) {
	err = c.call(ctx, http.MethodGet, pathStats, nil, &st)
	return st, err
}

// Pause stops the machine's CPUs and devices.
func (c *Client) Pause(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, pathPause, nil, nil)
}

// Resume goes on after Pause.
func (c *Client) Resume(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, pathResume, nil, nil)
}

// Wait returns the machine's last record when it has ended. A machine that
// dies without a word, and one that is gone already, is an error; Dir.Wait
// deals with those too.
func (c *Client) Wait(ctx context.Context) (r Record, err error) {
	err = c.call(ctx, http.MethodGet, pathWait, nil, &r)
	return r, err
}

// Stop asks the guest to shut down and ends the machine after grace if it has
// not. It returns when the machine has ended.
func (c *Client) Stop(ctx context.Context, grace time.Duration) error {
	err := c.call(ctx, http.MethodPost, pathStop+"?time="+url.QueryEscape(grace.String()), nil, nil)
	if ended(err) {
		return nil // the process was quicker than its answer
	}
	return err
}

// Kill ends the machine now.
func (c *Client) Kill(ctx context.Context) error {
	err := c.call(ctx, http.MethodPost, pathKill, nil, nil)
	if ended(err) {
		return nil
	}
	return err
}

func ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// Inspect fetches /v1/inspect/what into v.
func (c *Client) Inspect(ctx context.Context, what string, query url.Values, v any) error {
	return c.call(ctx, http.MethodGet, pathView+what+"?"+query.Encode(), nil, v)
}

// Action posts in to /v1/action/what and decodes the answer into out, if not
// nil.
func (c *Client) Action(ctx context.Context, what string, in, out any) error {
	b, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return c.call(ctx, http.MethodPost, pathAction+what, strings.NewReader(string(b)), out)
}

func (c *Client) call(ctx context.Context, method, path string, body io.Reader, v any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://machine"+path, body)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return c.refused(resp)
	}
	if v == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
		return fmt.Errorf("machine %q: its answer: %w", c.name, err)
	}
	return nil
}

func (c *Client) unreachable(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		err = e.Err // "Get http://machine/…" says nothing to a user
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("machine %q %w: vitrine kill %s ends its process", c.name, ErrNoAnswer, c.name)
	}
	return fmt.Errorf("machine %q: %w", c.name, err)
}

func (c *Client) refused(resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	return fmt.Errorf("machine %q: %s", c.name, strings.TrimSpace(string(b)))
}

// Console joins the machine's console.
func (c *Client) Console(ctx context.Context) (net.Conn, error) { return c.stream(ctx, pathConsole) }

// Dial connects to a vsock port in the guest.
func (c *Client) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	return c.stream(ctx, fmt.Sprintf("%s%d", pathVsock, port))
}

// Stream opens /v1/stream/what.
func (c *Client) Stream(ctx context.Context, what string, query url.Values) (net.Conn, error) {
	return c.stream(ctx, pathStream+what+"?"+query.Encode())
}

// stream opens a path whose connection becomes a stream.
func (c *Client) stream(ctx context.Context, path string) (net.Conn, error) {
	conn, err := dial(ctx, c.socket)
	if err != nil {
		return nil, c.unreachable(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	s, err := c.handshake(conn, path)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return s, nil
}

func (c *Client) handshake(conn net.Conn, path string) (net.Conn, error) {
	req, err := http.NewRequest(http.MethodGet, "http://machine"+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", upgradeTo)
	if err := req.Write(conn); err != nil {
		return nil, c.unreachable(err)
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return nil, c.refused(resp)
	}
	return &bufferedConn{Conn: conn, r: r}, nil
}
