package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/debugport"
	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/snapshot"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
)

// Lab 12: a program prepares itself and says that it is ready by a mark, where
// the machine is saved. Clones go on from there, each with a name of its own.
const (
	readyMark = 0x21
	questions = 16 // that the preparation asks the debug port
)

// family is a saved machine and what is to be known of how it came to be.
type family struct {
	dir    string
	saved  vmm.Saved
	ready  time.Duration // from the program's begin to its mark
	broken []string      // why there is none
}

func (f *family) close() error { return os.RemoveAll(f.dir) }

// breed runs a program until it is ready, and saves the machine.
func breed(ctx context.Context, program []byte, o Options) (f *family, err error) {
	f = new(family)
	if f.dir, err = os.MkdirTemp("", "vitrine-lab"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	ready := make(chan struct{}, 1)
	out := new(output)
	s := Start{Configure: func(c *vmm.Config) {
		c.Console.In = nil
		c.OnMark = func(mark uint8) {
			if mark == readyMark {
				select {
				case ready <- struct{}{}:
				default:
				}
			}
		}
	}}
	m, err := newMachine(program, s, o, out)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	r := &Result{Start: s, Mem: m.Memory(), m: m, out: out}
	return f, f.raise(ctx, r, ready, o.Limit)
}

// raise runs the first machine to its mark.
func (f *family) raise(ctx context.Context, r *Result, ready <-chan struct{}, limit time.Duration) error {
	m := r.m
	r.events = m.Observe(keepEvents).NewMerger()
	defer m.Unobserve()
	if err := m.Pause(ctx); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	defer func() {
		m.Stop(nil)
		<-ended
	}()
	err := m.OnCPU(0, r.begin)
	if err == nil {
		err = m.Resume()
	}
	if err != nil {
		return err
	}
	begun := time.Now()
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		select {
		case <-ready:
			f.ready = time.Since(begun)
			f.saved, err = m.Save(ctx, filepath.Join(f.dir, "ready"), vmm.SaveOptions{Maker: "lab", Volatile: true, KeepPaused: true})
			if said := r.out.String(); said != "" {
				f.broken = append(f.broken, fmt.Sprintf("the machine that is saved sent %q: nothing is to be said before the program knows its name, and only clones are given one", said))
			}
			return err
		case err := <-ended:
			ended <- nil // for the deferred function
			err = r.crashed(err)
			f.broken = []string{r.neverReady(), r.Why}
			return err
		case <-time.After(wait):
		}
		if r.over(time.Since(begun), limit) {
			return f.late(ctx, r, limit)
		}
	}
}

// late is for a program that has not become ready in time.
func (f *family) late(ctx context.Context, r *Result, limit time.Duration) error {
	if err := r.m.Pause(ctx); err != nil {
		return err
	}
	if err := r.look(); err != nil {
		return err
	}
	r.drain()
	f.broken = []string{r.neverReady(), r.overdue(limit)}
	return nil
}

// neverReady says that there was no mark, and why, if that can be told.
func (r *Result) neverReady() string {
	s := fmt.Sprintf("the program must say that it is ready by writing %#x to port %#x, once it is prepared, and did not", readyMark, debugport.Port)
	if n := r.accesses(com1+5, false); n > 1 {
		s += fmt.Sprintf("; it has read COM1's line status %d times: it waits for a name, which only clones are given, so everything before the mark must do without", n)
	}
	return s
}

// awaitName lets the clone's CPU go on when the UART has received the name, so
// that the run has no long wait in it.
func (r *Result) awaitName(vmm.VCPU) error {
	// A UART that nobody has listened to when the machine was saved takes the
	// name only once the program asks.
	const patience = 100 * time.Millisecond
	for begun := time.Now(); time.Since(begun) < patience; time.Sleep(time.Millisecond) {
		r.drain()
		if slices.ContainsFunc(r.Events, func(e trace.Event) bool { return e.Kind == trace.KindInput }) {
			break
		}
	}
	return nil
}

// clone goes on from the saved machine with a name.
func (f *family) clone(ctx context.Context, name string, o Options) (r *Result, took time.Duration, err error) {
	begun := time.Now()
	s, err := snapshot.Open(filepath.Join(f.dir, "ready"))
	if err != nil {
		return nil, 0, err
	}
	defer s.Close()
	out := new(output)
	m, err := vmm.Restore(vmm.Config{Name: "clone-" + name, Console: vmm.Serial{In: strings.NewReader(name), Out: out}}, s)
	if err != nil {
		return nil, 0, err
	}
	r = &Result{Start: Start{Input: name}, Mem: m.Memory(), m: m, out: out}
	if err := r.run(ctx, o.Limit, r.awaitName); err != nil {
		return nil, 0, err
	}
	return r, time.Since(begun), nil
}

// judgeFork is lab 12's check.
func judgeFork(ctx context.Context, program []byte, o Options) (broken []string, err error) {
	f, err := breed(ctx, program, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	if len(f.broken) > 0 {
		return f.broken, nil
	}
	said := make(map[string]string)
	for _, name := range []string{"A", "B"} {
		r, _, err := f.clone(ctx, name, o)
		if err != nil {
			return nil, err
		}
		for _, s := range checkClone(r) {
			broken = append(broken, "clone "+name+": "+s)
		}
		said[name] = r.Output
		if err := r.Close(); err != nil {
			return nil, err
		}
	}
	if said["A"] == said["B"] && said["A"] != "" {
		broken = append(broken, fmt.Sprintf("both clones say %q: what was in memory when the machine was saved is in both, so a name must be asked for afterwards", said["A"]))
	}
	return broken, nil
}

// checkClone is what must be true of each clone.
func checkClone(r *Result) (broken []string) {
	if !r.Halted {
		broken = append(broken, "it does not end by HLT with interrupts off: "+r.Why)
	}
	if want := r.Start.Input + strings.Repeat(string(rune(debugport.Presence)), questions) + "\n"; r.Output != want {
		broken = append(broken, fmt.Sprintf("COM1 must send %q, and sent %q", want, r.Output))
	}
	if n := r.accesses(debugport.Port, false); n > 0 {
		broken = append(broken, fmt.Sprintf("it asked port %#x %d times: the answers are the same for all, so the saved machine is to have them in its memory", debugport.Port, n))
	}
	for i := range r.Events {
		if e := &r.Events[i]; e.Kind == trace.KindIO && e.Write && e.Addr == debugport.Port {
			return append(broken, "it says again that it is ready: the mark comes once, before the name")
		}
	}
	return broken
}

// runFork is lab 12's demonstration.
func runFork(ctx context.Context, program []byte, o Options, w io.Writer) (err error) {
	f, err := breed(ctx, program, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	if len(f.broken) > 0 {
		return errors.New(strings.Join(f.broken, "\n"))
	}
	fmt.Fprintf(w, "ready after %v, saved in %v: %d KiB of %d KiB of memory were not zero\n",
		f.ready.Round(10*time.Microsecond), f.saved.Total.Round(10*time.Microsecond), f.saved.Stored>>10, guestSize>>10)
	for _, name := range []string{"A", "B", "C"} {
		r, took, err := f.clone(ctx, name, o)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "clone %s: %q after %v, with %d exits\n", name, r.Output, took.Round(10*time.Microsecond), r.Exits())
		if !r.Halted {
			fmt.Fprintln(w, r.Why)
		}
		if err := r.Close(); err != nil {
			return err
		}
	}
	return nil
}
