// Package balloon is the memory balloon of VIRTIO 1.2 §5.5: it takes memory
// from a guest and gives it back, tells how the guest uses its memory, and lets
// the guest report pages that are free, so that the host need not keep them.
package balloon

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"sync/atomic"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// Feature bits (virtio 1.2 §5.5.3).
const (
	FeatureStats         = 1 << 1
	FeatureDeflateOnOOM  = 1 << 2
	FeaturePageReporting = 1 << 5
)

const (
	queueSize = 128
	pageShift = 12      // of a page frame number, whatever pages the guest has (§5.5.6)
	configLen = 8       // num_pages, actual
	actualAt  = 4       // the field that the driver writes
	maxList   = 1 << 20 // bytes of page frame numbers in one request
)

// Queues, by their place before those that were not negotiated are left out
// (§5.5.2).
const (
	inflateQueue = iota
	deflateQueue
	firstOptionalQueue
)

// Memory is what the device needs of guest memory: *memory.Guest.
type Memory interface {
	// Discard gives pages back to the host.
	Discard(a memory.Addr, n uint64) error
}

// Options are what a device can be told.
type Options struct {
	Name string // for messages; default "balloon"

	// DeflateOnOOM lets the guest take memory back by itself before it kills
	// a process for want of it.
	DeflateOnOOM bool
}

// Device is a memory balloon.
type Device struct {
	mem  Memory
	opts Options

	target    atomic.Uint32 // pages that the balloon should hold: num_pages
	actual    atomic.Uint32 // pages that the driver says it holds
	discarded atomic.Uint64 // bytes given back to the host, in any way
	changed   atomic.Pointer[func()]

	stats statsQueue
}

var (
	_ virtio.Device         = (*Device)(nil)
	_ virtio.ConfigNotifier = (*Device)(nil)
	_ virtio.Resetter       = (*Device)(nil)
	_ virtio.Stater         = (*Device)(nil)
)

// New returns a balloon, empty and to be kept so. mem is what pages are given
// back to; nil is the guest memory that the device's queues lie in.
func New(mem Memory, opts Options) *Device {
	if opts.Name == "" {
		opts.Name = "balloon"
	}
	return &Device{mem: mem, opts: opts}
}

// Spec implements virtio.Device.
func (d *Device) Spec() virtio.Spec {
	f := uint64(FeatureStats | FeaturePageReporting)
	if d.opts.DeflateOnOOM {
		f |= FeatureDeflateOnOOM
	}
	return virtio.Spec{ID: virtio.IDBalloon, Features: f, ConfigLen: configLen, Name: d.opts.Name,
		QueueMax: []uint16{queueSize, queueSize, queueSize, queueSize}}
}

// SetTarget asks the guest to leave n bytes of its memory to the balloon,
// rounded down to pages. How far it comes, and when, is its own affair.
func (d *Device) SetTarget(n uint64) error {
	pages := n >> pageShift
	if pages > 1<<32-1 {
		return fmt.Errorf("%s: a balloon of %d bytes: at most 16 TiB are possible", d.opts.Name, n)
	}
	d.target.Store(uint32(pages))
	if f := d.changed.Load(); f != nil {
		(*f)()
	}
	return nil
}

// Target is what SetTarget asked for, in bytes.
func (d *Device) Target() uint64 { return uint64(d.target.Load()) << pageShift }

// Actual is how much the driver says that the balloon holds, in bytes.
func (d *Device) Actual() uint64 { return uint64(d.actual.Load()) << pageShift }

// Discarded is how many bytes were given back to the host since the device was
// made. The guest may have taken them again.
func (d *Device) Discarded() uint64 { return d.discarded.Load() }

// OnConfigChange implements virtio.ConfigNotifier.
func (d *Device) OnConfigChange(notify func()) { d.changed.Store(&notify) }

// Reset implements virtio.Resetter: a new driver's balloon is empty.
func (d *Device) Reset() { d.actual.Store(0) }

// ReadConfig implements virtio.Device.
func (d *Device) ReadConfig(off uint64, p []byte) {
	clear(p)
	if off < configLen {
		var c [configLen]byte
		binary.LittleEndian.PutUint32(c[0:], d.target.Load())
		binary.LittleEndian.PutUint32(c[actualAt:], d.actual.Load())
		copy(p, c[off:])
	}
}

// WriteConfig implements virtio.Device: the driver tells how much the balloon
// holds.
func (d *Device) WriteConfig(off uint64, p []byte) {
	if off == actualAt && len(p) >= 4 {
		d.actual.Store(binary.LittleEndian.Uint32(p))
	}
}

// Serve implements virtio.Device.
func (d *Device) Serve(ctx context.Context, features uint64, qs []*virtio.Queue) error {
	return virtio.Work(ctx, qs, func(ctx context.Context, q *virtio.Queue) error {
		g := giver{d, d.mem}
		if g.mem == nil {
			g.mem = q.Memory()
		}
		switch role(q.Index(), features) {
		case inflateQueue:
			return virtio.Loop(ctx, q, g.inflate)
		case deflateQueue:
			return virtio.Loop(ctx, q, deflate)
		case statsRole:
			return d.stats.serve(ctx, q)
		case reportingRole:
			return virtio.Loop(ctx, q, g.report)
		}
		return nil
	})
}

// Roles of the optional queues.
const (
	statsRole = firstOptionalQueue + iota
	reportingRole
	noRole
)

// role says what the queue with the given number is for: a feature that was
// not negotiated takes no number.
func role(index int, features uint64) int {
	if index < firstOptionalQueue {
		return index
	}
	next := firstOptionalQueue
	for _, o := range []struct {
		feature uint64
		role    int
	}{{FeatureStats, statsRole}, {FeaturePageReporting, reportingRole}} {
		if features&o.feature == 0 {
			continue
		}
		if index == next {
			return o.role
		}
		next++
	}
	return noRole
}

// giver gives pages to the host.
type giver struct {
	d   *Device
	mem Memory
}

// inflate takes pages, given as an array of 32-bit page frame numbers (§5.5.6).
// Numbers that are not RAM are ignored: the guest has not lost anything. Pages
// that follow each other, up or down, are discarded together.
func (g giver) inflate(c *virtio.Chain) (uint32, error) {
	if c.ReadableLen()%4 != 0 || c.ReadableLen() > maxList {
		return 0, virtio.Fault(inflateQueue, "5.5.6", "a list of page numbers of %d bytes", c.ReadableLen())
	}
	cur := virtio.NewReader(c.Readable())
	var run pageRun
	for range c.ReadableLen() / 4 {
		pfn := uint64(cur.Uint32())
		if !run.add(pfn) {
			g.discard(run)
			run = pageRun{pfn, pfn + 1}
		}
	}
	g.discard(run)
	return 0, nil
}

// pageRun is a run of pages, [first, end).
type pageRun struct{ first, end uint64 }

func (r *pageRun) add(pfn uint64) bool {
	switch pfn {
	case r.end:
		r.end++
	case r.first - 1:
		r.first--
	default:
		return false
	}
	return true
}

func (g giver) discard(r pageRun) {
	n := (r.end - r.first) << pageShift
	if n > 0 && g.mem.Discard(memory.Addr(r.first<<pageShift), n) == nil {
		g.d.discarded.Add(n)
	}
}

// deflate gives pages back: the host supplies them when they are touched.
func deflate(*virtio.Chain) (uint32, error) { return 0, nil }

// report takes free pages, given as device-writable buffers (§5.5.6.7). The
// device does not write: it lets the host have the memory until the guest
// touches it again.
func (g giver) report(c *virtio.Chain) (uint32, error) {
	for _, s := range c.Segments(false) {
		first := (uint64(s.Addr) + memory.PageSize - 1) >> pageShift
		end := (uint64(s.Addr) + uint64(s.Len)) >> pageShift
		if first < end {
			g.discard(pageRun{first, end})
		}
	}
	return 0, nil
}

// state is what a snapshot keeps.
type state struct {
	Version int    `json:"version"`
	Target  uint32 `json:"target"` // pages
	Actual  uint32 `json:"actual"` // pages
}

// State implements virtio.Stater.
func (d *Device) State() ([]byte, error) {
	return json.Marshal(state{1, d.target.Load(), d.actual.Load()})
}

// SetState implements virtio.Stater.
func (d *Device) SetState(b []byte) error {
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("%s: state: %w", d.opts.Name, err)
	}
	if s.Version != 1 {
		return fmt.Errorf("%s: state of version %d: this version knows 1", d.opts.Name, s.Version)
	}
	d.target.Store(s.Target)
	d.actual.Store(s.Actual)
	return nil
}
