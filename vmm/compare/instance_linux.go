package compare

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// instance is one run of the program in an engine.
type instance struct {
	engine Engine
	id     string
	cmd    *exec.Cmd
	began  time.Time // just before the exec
	ended  time.Time // when the command had ended
	stderr limited

	mu      sync.Mutex
	marks   marks
	changed chan struct{} // closed and made anew with each arrival
	waited  chan error    // the command's end
	read    chan struct{} // closed: all output is read
}

// launch starts the program in the engine.
func launch(e Engine, sp *spawner, id string, j Job) (*instance, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	in := &instance{engine: e, id: id, cmd: e.Command(id, j), changed: make(chan struct{}), waited: make(chan error, 1), read: make(chan struct{})}
	in.stderr.watch(e.Info().GaveUp)
	in.cmd.Stdout = w
	in.cmd.Stderr = &in.stderr
	in.cmd.WaitDelay = time.Second // children that keep standard error open
	in.began = time.Now()
	err = sp.start(in.cmd)
	w.Close()
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("start %s: %w", in.cmd.Path, err)
	}
	go in.readAll(r)
	go func() {
		err := in.cmd.Wait()
		in.mu.Lock()
		if in.ended.IsZero() {
			in.ended = time.Now()
		}
		in.mu.Unlock()
		// What a process left behind that holds the pipe is not waited for.
		r.SetReadDeadline(time.Now().Add(time.Second))
		in.waited <- err
	}()
	return in, nil
}

func (in *instance) readAll(r *os.File) {
	defer close(in.read)
	defer r.Close()
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		now := time.Now()
		in.mu.Lock()
		in.marks.add(buf[:n], now)
		close(in.changed)
		in.changed = make(chan struct{})
		in.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// reach waits until the program has reached its first act, and for begins to
// have begun so many jobs.
func (in *instance) reach(ctx context.Context, begins int) (time.Time, error) {
	for {
		in.mu.Lock()
		at, n, changed := in.marks.out.reached, len(in.marks.out.begins), in.changed
		in.mu.Unlock()
		if !at.IsZero() && n >= begins {
			return at, nil
		}
		select {
		case <-changed:
		case <-in.read:
			return at, in.failure(errNoResult)
		case <-in.stderr.seen:
			return at, in.gaveUp()
		case <-ctx.Done():
			return at, in.failure(context.Cause(ctx))
		}
	}
}

// wait waits for the end, and kills what does not come to one.
func (in *instance) wait(ctx context.Context) (*outcome, error) {
	if in.engine.Info().KillAtEnd {
		return in.waitOver(ctx)
	}
	var err error
	select {
	case err = <-in.waited:
	case <-in.stderr.seen:
		return nil, errors.Join(in.gaveUp(), in.kill())
	case <-ctx.Done():
		return nil, errors.Join(in.failure(context.Cause(ctx)), in.kill())
	}
	<-in.read
	o, bad := in.marks.finish()
	if bad != nil {
		bad = errors.Join(bad, killGroup(in.cmd.Process.Pid)) // what a command that was killed left behind
	}
	removed := in.remove()
	if bad != nil {
		if err != nil && errors.Is(bad, errNoResult) {
			bad = fmt.Errorf("%w: %w", bad, err)
		}
		return nil, errors.Join(in.failure(bad), removed)
	}
	// On a busy host the end may be noticed before the mark is read.
	if o.reached.After(in.ended) {
		o.reached = in.ended
	}
	if code := in.cmd.ProcessState.ExitCode(); in.engine.Info().OwnStatus && code != o.status {
		return nil, errors.Join(fmt.Errorf("exit status %d, and the program's was %d", code, o.status), removed)
	}
	return o, removed
}

// waitOver waits for the program's last word, and ends the engine then.
func (in *instance) waitOver(ctx context.Context) (*outcome, error) {
	for {
		in.mu.Lock()
		over, changed := in.marks.out.over, in.changed
		in.mu.Unlock()
		if over {
			break
		}
		select {
		case <-changed:
		case <-in.read:
			return nil, errors.Join(in.failure(errNoResult), in.kill())
		case <-in.stderr.seen:
			return nil, errors.Join(in.gaveUp(), in.kill())
		case <-ctx.Done():
			return nil, errors.Join(in.failure(context.Cause(ctx)), in.kill())
		}
	}
	if err := in.kill(); err != nil {
		return nil, err
	}
	return in.marks.finish()
}

// kill ends the instance, whatever it does, and leaves nothing of it.
func (in *instance) kill() error {
	err := killGroup(in.cmd.Process.Pid)
	<-in.waited
	<-in.read
	return errors.Join(err, in.remove())
}

// removeTime is how long engines may take to clear up.
const removeTime = 20 * time.Second

func (in *instance) remove() error {
	ctx, cancel := context.WithTimeout(context.Background(), removeTime)
	defer cancel()
	if err := in.engine.Remove(ctx, in.id); err != nil {
		return fmt.Errorf("clear up after %s: %w", in.id, err)
	}
	return nil
}

// failure adds to an error what the engine said.
func (in *instance) failure(err error) error {
	words := lastWords(in.stderr.Bytes())
	return fmt.Errorf("%w (%s)", err, words)
}

// gaveUp is the failure of an engine that said so and stays.
func (in *instance) gaveUp() error {
	return fmt.Errorf("it gave up: %s", in.engine.Info().GaveUp)
}

// limited keeps the end of what is written to it.
type limited struct {
	mu   sync.Mutex
	b    bytes.Buffer
	word []byte        // looked for
	seen chan struct{} // closed when word was written; nil: nothing is looked for
}

var _ io.Writer = (*limited)(nil)

// watch makes seen tell when word is written.
func (l *limited) watch(word string) {
	if word != "" {
		l.word, l.seen = []byte(word), make(chan struct{})
	}
}

func (l *limited) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.b.Len() > 64<<10 {
		l.b.Next(l.b.Len() - 4<<10)
	}
	n, err := l.b.Write(p)
	if l.word != nil && bytes.Contains(l.b.Bytes(), l.word) {
		l.word = nil
		close(l.seen)
	}
	return n, err
}

// Bytes is a copy of what is kept.
func (l *limited) Bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.b.Bytes())
}
