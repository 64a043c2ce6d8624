package gdb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Serve serves debuggers on l, one at a time, until ctx is done or the machine
// has ended. A second debugger is told that there is one already. When a
// debugger goes, its breakpoints go too and the machine runs on.
func Serve(ctx context.Context, l net.Listener, t Target) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	var busy sync.Mutex
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("gdb: accept a debugger: %w", err)
		}
		if !busy.TryLock() {
			wg.Go(func() { refuse(conn) })
			continue
		}
		wg.Go(func() {
			ended := Session(ctx, conn, t)
			busy.Unlock()
			if errors.Is(ended, errEnded) {
				cancel()
			}
		})
	}
}

// refuse answers a second debugger's first packet with the reason.
func refuse(conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := newScanner(conn).next(); err == nil {
		_, _ = conn.Write(append([]byte{'+'}, frame([]byte("E.another debugger is attached to this machine"))...))
	}
}

var (
	errEnded    = errors.New("gdb: the machine has ended")
	errDetached = errors.New("gdb: detached")
)

// session is one debugger's connection.
type session struct {
	ctx  context.Context
	conn io.Writer
	t    Target

	noAck    bool
	last     []byte // the last reply, for a repeat
	swbreak  bool   // GDB understands the reasons swbreak and hwbreak
	hwbreak  bool
	thread   int // selected for registers and memory
	resumed  bool
	inserted map[Breakpoint]bool
	stop     Stop // the last one
}

// Session serves one debugger until it detaches or its connection ends, and
// then lets the machine run on. It returns why.
func Session(ctx context.Context, conn net.Conn, t Target) error {
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()

	s := &session{ctx: ctx, conn: conn, t: t, inserted: make(map[Breakpoint]bool)}
	if err := t.Pause(ctx); err != nil {
		return fmt.Errorf("gdb: stop the machine: %w", err)
	}
	s.drainStops()
	events := make(chan event)
	var readErr error
	go func() {
		defer close(events)
		sc := newScanner(conn)
		for {
			ev, err := sc.next()
			if err != nil {
				readErr = err
				return
			}
			select {
			case events <- ev:
			case <-ctx.Done():
				return
			}
		}
	}()
	err := s.loop(events)
	s.leave()
	if err == nil {
		err = readErr
	}
	return err
}

// drainStops forgets stops from before GDB was there.
func (s *session) drainStops() {
	for {
		select {
		case s.stop = <-s.t.Stops():
		default:
			return
		}
	}
}

func (s *session) loop(events <-chan event) error {
	for {
		var stops <-chan Stop
		if s.resumed {
			stops = s.t.Stops()
		}
		select {
		case ev, ok := <-events:
			if !ok {
				return nil
			}
			if err := s.handle(ev); err != nil {
				return err
			}
		case st := <-stops:
			s.resumed = false
			if err := s.reportStop(st); err != nil {
				return err
			}
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
	}
}

// leave takes back what the debugger changed.
func (s *session) leave() {
	if s.stop.ended() {
		return
	}
	// The session's context may be what has ended.
	if s.resumed {
		if s.t.Pause(context.WithoutCancel(s.ctx)) != nil {
			return
		}
	}
	for b := range s.inserted {
		_ = s.t.Remove(b)
	}
	_ = s.t.Resume()
}

func (s *session) handle(ev event) error {
	switch ev.kind {
	case evBad:
		if !s.noAck {
			return s.write([]byte{'-'})
		}
		return nil
	case evNak:
		return s.write(s.last)
	case evInterrupt:
		return s.interrupt()
	}
	if !s.noAck {
		if err := s.write([]byte{'+'}); err != nil {
			return err
		}
	}
	reply, err := s.command(ev.payload)
	if reply != nil {
		if werr := s.reply(reply); err == nil {
			err = werr
		}
	}
	return err
}

// interrupt is Ctrl-C.
func (s *session) interrupt() error {
	if !s.resumed {
		return nil
	}
	if err := s.t.Pause(s.ctx); err != nil {
		return s.reply(errorText(err))
	}
	s.resumed = false
	st := Stop{CPU: s.thread, Reason: Paused}
	select { // it may have stopped by itself just before
	case st = <-s.t.Stops():
	default:
	}
	return s.reportStop(st)
}

// reportStop tells GDB that the machine stopped.
func (s *session) reportStop(st Stop) error {
	s.stop = st
	if !st.ended() {
		s.thread = st.CPU
	}
	if err := s.reply(s.stopReply()); err != nil {
		return err
	}
	if st.ended() {
		return errEnded
	}
	return nil
}

const (
	sigInt  = 2
	sigTrap = 5
	sigAbrt = 6
)

// stopReply is why the machine stands still.
func (s *session) stopReply() []byte {
	st := s.stop
	switch st.Reason {
	case Exited:
		return fmt.Appendf(nil, "W%02x", st.Status)
	case Signaled:
		return fmt.Appendf(nil, "X%02x", sigAbrt)
	}
	signal := sigTrap
	if st.Reason == Paused {
		signal = sigInt
	}
	out := fmt.Appendf(nil, "T%02xthread:%x;", signal, st.CPU+1)
	switch {
	case st.Reason == AtSoft && s.swbreak:
		out = append(out, "swbreak:;"...)
	case st.Reason == AtHard && s.hwbreak:
		out = append(out, "hwbreak:;"...)
	case st.Reason == AtWatch:
		name := map[Kind]string{WriteWatch: "watch", ReadWatch: "rwatch", AccessWatch: "awatch"}[st.Watch.Kind]
		if name != "" {
			out = fmt.Appendf(out, "%s:%x;", name, st.Watch.Addr)
		}
	}
	return out
}

func (s *session) reply(payload []byte) error {
	s.last = frame(payload)
	return s.write(s.last)
}

func (s *session) write(p []byte) error {
	_, err := s.conn.Write(p)
	return err
}

// errorText is an error reply that GDB prints. One about what the target
// cannot do is the empty reply, which GDB knows as "not supported".
func errorText(err error) []byte {
	if errors.Is(err, ErrUnsupported) {
		return []byte{}
	}
	return []byte("E." + err.Error())
}
