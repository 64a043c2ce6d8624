package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/blk"
	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/disk"
	"github.com/vitrine-vmm/vitrine/vmm/snapshot"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
)

// traveller is the machine of a deterministic recording, executed again, beside
// the devices that package record plays.
type traveller struct {
	run *recordedRun
	opt *runOptions
	t   *vmm.Travel
	now *launch // of the machine that there is

	disks []disk.Options // of that machine: what it writes is in their layers

	placed bool // t stands where the user has gone by instructions, else where the events say
	synced int  // the number of events for which t stands, -1 for none
}

// travelState is what snapshots keep beside the machine.
type travelState struct {
	Entropy []byte `json:"entropy"` // state of the entropy device's source
}

// newTraveller makes a recording's machine.
func newTraveller(ctx context.Context, end *trace.End) (*traveller, error) {
	if end == nil {
		return nil, errors.New("the recording was cut off: it does not say what its machine is made of")
	}
	run, err := readRecordedRun(end.Run)
	if err != nil {
		return nil, err
	}
	r := &traveller{run: run, synced: -1}
	if r.opt, err = run.options(); err != nil {
		return nil, err
	}
	r.t, err = vmm.NewTravel(ctx, vmm.TravelOptions{Make: r.make, Save: r.save})
	return r, err
}

// make makes the machine as the recorded run did, its output unheard.
func (r *traveller) make(s *snapshot.Snapshot) (*vmm.Machine, func(), error) {
	o, err := r.layered(s)
	if err != nil {
		return nil, nil, err
	}
	l, err := o.open(newRunner(o, bytes.NewReader(r.run.Input), io.Discard, io.Discard))
	if err != nil {
		return nil, nil, err
	}
	m, err := r.machine(l, s)
	if err != nil {
		l.close()
		return nil, nil, err
	}
	r.now = l
	return m, l.close, nil
}

func (r *traveller) machine(l *launch, s *snapshot.Snapshot) (*vmm.Machine, error) {
	if s == nil {
		return vmm.New(l.cfg)
	}
	var kept travelState
	if err := json.Unmarshal(s.State.App, &kept); err != nil {
		return nil, err
	}
	if err := l.random.UnmarshalBinary(kept.Entropy); err != nil {
		return nil, err
	}
	return vmm.Restore(l.cfg, s)
}

// layered are the options with disks and persistent memory as they were when s
// was made, or when the recorded run began.
func (r *traveller) layered(s *snapshot.Snapshot) (*runOptions, error) {
	o := *r.opt
	o.disks, o.pmems = slices.Clone(o.disks), slices.Clone(o.pmems)
	for i := range o.disks {
		d := &o.disks[i]
		if d.Over == nil {
			continue
		}
		if err := layerOf(&d.Over, s, diskLayerFile(i)); err != nil {
			return nil, fmt.Errorf("--disk %s: %w", d.Path, err)
		}
	}
	for i := range o.pmems {
		p := &o.pmems[i]
		if err := layerOf(&p.over, s, pmemLayerFile(i)); err != nil {
			return nil, fmt.Errorf("--pmem %s: %w", p.path, err)
		}
	}
	r.disks = o.disks
	return &o, nil
}

// Files of a snapshot with what is not as in the files of the host.
func diskLayerFile(i int) string { return fmt.Sprintf("disk%d.layer", i) }
func pmemLayerFile(i int) string { return fmt.Sprintf("pmem%d.layer", i) }

// layerOf replaces the layer of the run's beginning by a new one: the same, or
// that of a snapshot.
func layerOf(l **disk.Layer, s *snapshot.Snapshot, name string) error {
	if s == nil {
		*l = (*l).Clone()
		return nil
	}
	f, err := os.Open(filepath.Join(s.Path, name))
	if err != nil {
		return err
	}
	defer f.Close()
	*l, err = disk.ReadLayer(f)
	return err
}

// saveLayers puts what the machine has written into a snapshot of it.
func (r *traveller) saveLayers(w *snapshot.Writer) error {
	for i := range r.disks {
		if d := &r.disks[i]; d.Over != nil {
			if err := writeLayer(w.Path(diskLayerFile(i)), d.Over); err != nil {
				return fmt.Errorf("disk %s: %w", d.Path, err)
			}
		}
	}
	for i, p := range r.now.pmems {
		l, err := p.Changes()
		if err == nil {
			err = writeLayer(w.Path(pmemLayerFile(i)), l)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func writeLayer(path string, l *disk.Layer) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = l.WriteTo(f)
	return errors.Join(err, f.Close())
}

func (r *traveller) save() vmm.SaveOptions {
	var kept travelState
	kept.Entropy, _ = r.now.random.MarshalBinary() // never fails
	app := func() (json.RawMessage, error) { return json.Marshal(kept) }
	return vmm.SaveOptions{Maker: version(), App: app, Files: r.saveLayers}
}

// after is a moment behind that of an event: when the instruction that caused it
// has been executed.
func after(items []trace.Item, n int) vmm.Place {
	if n == 0 {
		return vmm.Place{Time: math.MaxInt64}
	}
	return vmm.Place{Executed: math.MaxUint64, Time: items[n-1].Time + 1}
}

// machine is the machine as it was when so many events had happened, or where
// the user went by instructions.
func (s *replaySession) machine(ctx context.Context) (*traveller, error) {
	if s.travel == nil {
		r, err := newTraveller(ctx, s.p.End)
		if err != nil {
			return nil, err
		}
		s.travel = r
	}
	r := s.travel
	if n := s.p.At(); !r.placed && r.synced != n || r.placed && s.eventsBefore(r.t.At().Time) != n {
		r.placed, r.synced = false, n
		if err := s.arrived(r.t.Go(ctx, after(s.p.Items, n))); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// arrived tells of a machine that ended before the place that was wanted.
func (s *replaySession) arrived(err error) error {
	if errors.Is(err, vmm.ErrTravelEnd) {
		fmt.Fprintf(s.out, "before its last instruction: %v\n", err)
		return nil
	}
	return err
}

// eventsBefore is how many events happened before a time.
func (s *replaySession) eventsBefore(at time.Duration) int {
	return sort.Search(len(s.p.Items), func(i int) bool { return s.p.Items[i].Time >= at })
}

// goInstruction takes machine and devices to an instruction, by its number or
// from where they are.
func (s *replaySession) goInstruction(ctx context.Context, cmd, arg string) error {
	n := uint64(1)
	if arg != "" || cmd == "gi" {
		var err error
		if n, err = strconv.ParseUint(arg, 10, 64); err != nil {
			return fmt.Errorf("%s is not a number of instructions", quote(arg))
		}
	}
	r, err := s.machine(ctx)
	if err != nil {
		return err
	}
	at := r.t.At().Executed
	switch cmd {
	case "i":
		n = at + min(n, math.MaxUint64-at)
	case "ib":
		n = at - min(n, at)
	}
	if err := s.arrived(r.t.GoTo(ctx, n)); err != nil {
		return err
	}
	r.placed = true
	if err := s.p.Go(s.eventsBefore(r.t.At().Time)); err != nil {
		return err
	}
	return s.where(ctx)
}

// where prints where the machine is and what its CPUs execute next.
func (s *replaySession) where(ctx context.Context) error {
	r, err := s.machine(ctx)
	if err != nil {
		return err
	}
	at := r.t.At()
	fmt.Fprintf(s.out, "instruction %d, %.9f s, %d events before it\n", at.Executed, at.Time.Seconds(), s.p.At())
	for cpu := range r.opt.cpus {
		v, err := r.t.Machine().Inspect(ctx, "disasm", vmm.InspectQuery{CPU: cpu, Length: 1})
		if err != nil {
			return err
		}
		_, next, _ := strings.Cut(v.Text, "→ ") // what was executed before it is a guess
		fmt.Fprintf(s.out, "cpu %d  %s", cpu, next)
	}
	return nil
}

// look prints a view of the machine: VIEW [ADDRESS] [CPU].
func (s *replaySession) look(ctx context.Context, arg string) error {
	words := strings.Fields(arg)
	if len(words) == 0 || !slices.Contains(vmm.Inspections(), words[0]) {
		return fmt.Errorf("x VIEW [ADDRESS]: the views are %s", strings.Join(vmm.Inspections(), ", "))
	}
	var q vmm.InspectQuery
	for _, w := range words[1:] {
		if n, ok := strings.CutPrefix(w, "cpu="); ok {
			var err error
			if q.CPU, err = strconv.Atoi(n); err != nil {
				return fmt.Errorf("%s is not a CPU", quote(w))
			}
			continue
		}
		addr, ok := s.view.symbols.Addr(w)
		if v, err := strconv.ParseUint(w, 0, 64); err == nil {
			addr, ok = v, true
		}
		if !ok {
			return fmt.Errorf("%s is neither an address such as 0x1000 nor a function", quote(w))
		}
		q.Addr, q.HasA = addr, true
	}
	r, err := s.machine(ctx)
	if err != nil {
		return err
	}
	v, err := r.t.Machine().Inspect(ctx, words[0], q)
	if err != nil {
		return err
	}
	_, err = io.WriteString(s.out, v.Text)
	return err
}

// lookAtDisk prints a sector of a disk as the machine has it: DISK SECTOR.
func (s *replaySession) lookAtDisk(ctx context.Context, arg string) error {
	words := strings.Fields(arg)
	if len(words) != 2 {
		return errors.New("v DISK SECTOR, such as v vda 0")
	}
	r, err := s.machine(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(r.now.devices, func(d virtio.Device) bool { return d.Spec().Name == words[0] })
	if i < 0 || i >= len(r.now.backends) { // disks are the first devices
		return fmt.Errorf("no disk %s", quote(words[0]))
	}
	n, err := strconv.ParseInt(words[1], 0, 64)
	if err != nil || n < 0 || n >= r.now.backends[i].Info().Size/blk.SectorSize {
		return fmt.Errorf("%s has %d sectors, from 0 on", words[0], r.now.backends[i].Info().Size/blk.SectorSize)
	}
	sector := make([]byte, blk.SectorSize)
	if err := request(r.now.backends[i], &blk.Request{Op: blk.OpRead, Offset: n * blk.SectorSize, Length: blk.SectorSize, Vec: [][]byte{sector}}); err != nil {
		return err
	}
	_, err = io.WriteString(s.out, hex.Dump(sector))
	return err
}

// eventList collects a trace.
type eventList struct {
	items  []trace.Item
	pieces *trace.Assembler
	lost   uint64
}

func (l *eventList) Events(events []trace.Event) error {
	for _, e := range events {
		if it, ok := l.pieces.Add(e); ok {
			l.items = append(l.items, it)
		}
	}
	return nil
}

func (l *eventList) End(e *trace.End) error { l.lost = e.Lost; return nil }

// executeAgain executes the whole recorded run again and compares its events,
// byte for byte, with those that were recorded.
func (s *replaySession) executeAgain(ctx context.Context) error {
	run, err := readRecordedRun(s.p.End.Run)
	if err != nil {
		return err
	}
	r := &traveller{run: run}
	if r.opt, err = run.options(); err != nil {
		return err
	}
	m, release, err := r.make(nil)
	if err != nil {
		return err
	}
	defer release()
	defer m.Close()
	t, err := m.StartTrace(vmm.TraceOptions{Record: true})
	if err != nil {
		return err
	}
	again := &eventList{pieces: trace.NewAssembler()}
	over, followed := make(chan struct{}), make(chan error, 1)
	go func() { followed <- t.Follow(ctx, over, again) }()
	end := m.Run(ctx)
	close(over)
	if err := <-followed; err != nil {
		return err
	}
	var stop *vmm.StopError
	if end != nil && !errors.As(end, &stop) {
		return end
	}
	for i := range min(len(again.items), len(s.p.Items)) {
		if !reflect.DeepEqual(again.items[i], s.p.Items[i]) {
			return fmt.Errorf("executed again, event %d is another: recorded %+v, now %+v", i, s.p.Items[i], again.items[i])
		}
	}
	if len(again.items) != len(s.p.Items) {
		return fmt.Errorf("executed again, it has %d events, and %d were recorded (made by %s, this is %s)", len(again.items), len(s.p.Items), run.Maker, version())
	}
	fmt.Fprintf(s.out, "executed again: the same %d events\n", len(again.items))
	return nil
}
