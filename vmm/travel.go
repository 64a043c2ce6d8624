package vmm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sort"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/snapshot"
)

// TravelOptions are how a deterministic machine is made again and again.
type TravelOptions struct {
	// Make makes the machine: from its beginning, or restored from s. It is to
	// be the same each time. release is called when the machine is no more.
	Make func(s *snapshot.Snapshot) (m *Machine, release func(), err error)
	// Save is how snapshots are made; of it, App and Files count.
	Save func() SaveOptions
	// Every is how many instructions lie between two snapshots; default
	// DefaultTravelEvery. It doubles when there are MaxMoments of them.
	Every uint64
	// Dir is where the snapshots are; "" is a folder that goes with Close.
	Dir string
}

// Distances of snapshots, and how many are kept.
const (
	DefaultTravelEvery = 8 << 20
	MaxMoments         = 16
)

// Travel is a deterministic machine that goes to any instruction of its life,
// forwards and back: back by restoring the last of the snapshots that it has
// made on its way before the place, and by executing from there on. Its methods
// are for one goroutine.
type Travel struct {
	opt     TravelOptions
	dir     string
	own     bool // dir goes with Close
	m       *Machine
	release func()
	ended   chan error // of m's Run
	over    bool       // m has ended, with end
	end     error
	kept    []travelMoment // in order
	made    int
}

// travelMoment is a snapshot.
type travelMoment struct {
	at   Place
	path string
}

// Place is a moment in a machine's life: before an instruction.
type Place struct {
	Executed uint64        // instructions before it, by all CPUs
	Time     time.Duration // of the machine's
}

// ErrTravelEnd says that a machine ended before it got where it was to go.
var ErrTravelEnd = errors.New("the machine has ended")

// NewTravel makes the machine and stands before its first instruction.
func NewTravel(ctx context.Context, o TravelOptions) (t *Travel, err error) {
	if o.Every == 0 {
		o.Every = DefaultTravelEvery
	}
	t = &Travel{opt: o, dir: o.Dir}
	if t.dir == "" {
		if t.dir, err = os.MkdirTemp("", "vitrine-travel-"); err != nil {
			return nil, err
		}
		t.own = true
	}
	if err := t.begin(ctx, nil); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// Machine is the machine, paused at At. It is another one after each Go.
func (t *Travel) Machine() *Machine { return t.m }

// At is where the machine stands.
func (t *Travel) At() Place {
	v := t.m.vm.(softVM)
	return Place{v.Executed(), time.Duration(v.Now())}
}

// Close ends the machine and removes the snapshots.
func (t *Travel) Close() error {
	err := t.stop()
	if t.own {
		err = errors.Join(err, os.RemoveAll(t.dir))
	}
	return err
}

// stop ends the machine that there is.
func (t *Travel) stop() error {
	if t.m == nil {
		return nil
	}
	if !t.over {
		t.m.Stop(nil)
		<-t.ended
	}
	err := t.m.Close()
	t.release()
	t.m = nil
	return err
}

// begin makes the machine, from a snapshot or from its beginning, and holds it
// before its first instruction.
func (t *Travel) begin(ctx context.Context, s *snapshot.Snapshot) (err error) {
	if t.m, t.release, err = t.opt.Make(s); err != nil {
		t.m = nil
		return err
	}
	v, ok := t.m.vm.(softVM)
	if !ok || !t.m.cfg.Deterministic {
		err := errors.Join(errors.New("only a deterministic machine can go back"), t.m.Close())
		t.release()
		t.m = nil
		return err
	}
	v.Hurry()
	t.over, t.end, t.ended = false, nil, make(chan error, 1)
	m, ended := t.m, t.ended
	if err := m.Pause(ctx); err != nil {
		return errors.Join(err, m.Close())
	}
	go func() { ended <- m.Run(context.Background()) }()
	m.guard.Lock()
	err = m.awaitCPUs(ctx)
	m.guard.Unlock()
	if err == nil {
		err = m.gate.waitParked(ctx)
	}
	if errors.Is(err, errStopped) {
		t.end = <-ended // says why
		t.over = true
		err = errors.Join(errors.New("the machine does not begin"), t.end)
	}
	return err
}

// Go goes to the instruction before which p.Executed were executed or before
// which the time is p.Time, whichever comes first. A machine that ends earlier
// stands before its last instruction then, and the error says how it ended.
func (t *Travel) Go(ctx context.Context, p Place) error {
	if now := t.At(); t.over || p.Executed < now.Executed || p.Time < now.Time {
		if err := t.back(ctx, p); err != nil {
			return err
		}
	}
	err := t.forward(ctx, p)
	if !errors.Is(err, ErrTravelEnd) {
		return err
	}
	// What has ended has no CPUs to look at.
	n := t.m.vm.(softVM).Executed()
	last := Place{n - min(n, 1), math.MaxInt64}
	why := t.end
	if err := t.back(ctx, last); err != nil {
		return err
	}
	if err := t.forward(ctx, last); err != nil {
		return err
	}
	if why == nil {
		why = errors.New(CausePowerOff.String())
	}
	return fmt.Errorf("%w: %w", ErrTravelEnd, why)
}

// GoTo is Go by instructions alone.
func (t *Travel) GoTo(ctx context.Context, executed uint64) error {
	return t.Go(ctx, Place{executed, math.MaxInt64})
}

// GoWhen is Go by the time alone.
func (t *Travel) GoWhen(ctx context.Context, at time.Duration) error {
	return t.Go(ctx, Place{math.MaxUint64, at})
}

// back restores the last snapshot before p, or begins anew.
func (t *Travel) back(ctx context.Context, p Place) error {
	n := sort.Search(len(t.kept), func(i int) bool {
		return t.kept[i].at.Executed > p.Executed || t.kept[i].at.Time > p.Time
	})
	if err := t.stop(); err != nil {
		return err
	}
	if n == 0 {
		return t.begin(ctx, nil)
	}
	s, err := snapshot.Open(t.kept[n-1].path)
	if err != nil {
		return err
	}
	return errors.Join(t.begin(ctx, s), s.Close())
}

// forward executes up to p, and makes snapshots on the way.
func (t *Travel) forward(ctx context.Context, p Place) error {
	for {
		at := t.At()
		next := (at.Executed/t.opt.Every + 1) * t.opt.Every
		if next >= p.Executed {
			return t.run(ctx, p)
		}
		if err := t.run(ctx, Place{next, p.Time}); err != nil {
			return err
		}
		if at := t.At(); at.Executed < next {
			return nil // the time came first
		}
		if err := t.keep(ctx); err != nil {
			return err
		}
	}
}

// run lets the machine run to p.
func (t *Travel) run(ctx context.Context, p Place) error {
	if at := t.At(); at.Executed >= p.Executed || at.Time >= p.Time {
		return nil
	}
	m, stopped := t.m, make(chan struct{})
	err := m.vm.(softVM).StopAt(uint64(p.Time), p.Executed, func() {
		if m.gate.pause() { // unless it ends with this instruction
			m.kick()
			close(stopped)
		}
	})
	if err != nil {
		return err
	}
	if err := m.Resume(); err != nil {
		return err
	}
	select {
	case <-stopped:
	case t.end = <-t.ended:
		t.over = true
		return ErrTravelEnd
	case <-ctx.Done():
		m.Stop(ctx.Err())
		t.end = <-t.ended
		t.over = true
		return ctx.Err()
	}
	m.guard.Lock()
	defer m.guard.Unlock()
	if err := m.gate.waitParked(ctx); err != nil {
		return err
	}
	return m.pauseDevices(ctx)
}

// keep makes a snapshot of where the machine stands, if there is none.
func (t *Travel) keep(ctx context.Context) error {
	at := t.At()
	i := sort.Search(len(t.kept), func(i int) bool { return t.kept[i].at.Executed >= at.Executed })
	if i < len(t.kept) && t.kept[i].at.Executed == at.Executed {
		return nil
	}
	t.made++
	path := filepath.Join(t.dir, fmt.Sprint(t.made))
	o := SaveOptions{}
	if t.opt.Save != nil {
		o = t.opt.Save()
	}
	o.Volatile, o.KeepPaused = true, true
	if _, err := t.m.Save(ctx, path, o); err != nil {
		return err
	}
	t.kept = append(t.kept, travelMoment{})
	copy(t.kept[i+1:], t.kept[i:])
	t.kept[i] = travelMoment{at, path}
	return t.thin()
}

// thin drops every other snapshot when there are too many.
func (t *Travel) thin() error {
	if len(t.kept) < MaxMoments {
		return nil
	}
	t.opt.Every *= 2
	var err error
	few := t.kept[:0]
	for i, k := range t.kept {
		if i%2 == 1 {
			few = append(few, k)
		} else {
			err = errors.Join(err, os.RemoveAll(k.path))
		}
	}
	t.kept = few
	return err
}
