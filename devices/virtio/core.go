package virtio

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// Interrupt status bits, the same in both transports (virtio 1.2 §4.1.4.5,
// §4.2.2).
const (
	isrQueue  = 1
	isrConfig = 2
)

// noVector is VIRTIO_MSI_NO_VECTOR (§4.1.5.1.2).
const noVector = 0xffff

const defaultResetTimeout = 5 * time.Second

// driverStatus are the status bits that a driver can set (§2.1).
const driverStatus = StatusAcknowledge | StatusDriver | StatusDriverOK | StatusFeaturesOK | StatusFailed

// configInterrupt is the number of no queue: a configuration change.
const configInterrupt = -1

// core is what both transports share: the status machine, features, the
// queues' configuration, and the life of Serve.
type core struct {
	dev     Device
	spec    Spec
	mem     *memory.Guest
	opts    Options
	offered uint64
	tracer  atomic.Pointer[Tracer]
	raise   func(queue int) error // the transport's: delivers an interrupt
	log     limiter

	// What Serve's side touches too is atomic: a vCPU waits for Serve to end
	// with mu held.
	status     atomic.Uint32
	isr        atomic.Uint32
	generation atomic.Uint32
	lastError  atomic.Pointer[string]

	configVector atomic.Uint32   // MSI-X
	vectors      []atomic.Uint32 // of the queues

	mu             sync.Mutex
	deviceSel      uint32 // which half of the features
	driverSel      uint32
	driverFeatures uint64
	queueSel       uint32
	queues         []queueState
	run            *run        // Serve, from its beginning to its end
	stopped        atomic.Bool // it is to end, or has
	lingers        bool        // run outlived a reset
	paused, closed bool
}

// queueState is one queue's configuration, as the driver writes it.
type queueState struct {
	size              uint16
	ready             bool
	desc, avail, used uint64
	bell              Doorbell
	irq               func() error
	live              *Queue // from DRIVER_OK to reset
}

// run is one call of Serve.
type run struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func (c *core) init(dev Device, mem *memory.Guest, opts Options, raise func(int) error) error {
	c.dev, c.spec, c.mem, c.opts, c.raise = dev, dev.Spec(), mem, opts, raise
	if c.opts.ResetTimeout == 0 {
		c.opts.ResetTimeout = defaultResetTimeout
	}
	c.offered = c.spec.Features | FeatureVersion1 | FeatureIndirectDesc | FeatureEventIdx
	if opts.NoIndirect {
		c.offered &^= FeatureIndirectDesc
	}
	if opts.NoEventIdx {
		c.offered &^= FeatureEventIdx
	}
	c.queues = make([]queueState, len(c.spec.QueueMax))
	c.vectors = make([]atomic.Uint32, len(c.queues))
	c.configVector.Store(noVector)
	for i, n := range c.spec.QueueMax {
		if n == 0 || n&(n-1) != 0 || n > MaxQueueSize {
			return fmt.Errorf("virtio device %s: queue %d: size %d is not a power of two up to %d", c.spec.Name, i, n, MaxQueueSize)
		}
		c.vectors[i].Store(noVector)
		c.queues[i] = queueState{size: n, bell: NewDoorbell(), irq: func() error { return c.interrupt(i) }}
	}
	if n, ok := dev.(ConfigNotifier); ok {
		n.OnConfigChange(c.configChanged)
	}
	return nil
}

// Device implements Transport.
func (c *core) Device() Device { return c.dev }

// Trace implements Transport.
func (c *core) Trace(t Tracer) {
	if t == nil {
		c.tracer.Store(nil)
		return
	}
	c.tracer.Store(&t)
}

func (c *core) interrupt(queue int) error {
	if t := c.tracer.Load(); t != nil {
		(*t).Interrupted(queue)
	}
	return c.raise(queue)
}

// configChanged tells the driver that the configuration space is another one
// (§2.5, §4.1.4.5, §4.2.2). A driver that is not ready yet reads it later.
func (c *core) configChanged() {
	c.generation.Add(1)
	if c.status.Load()&StatusDriverOK != 0 {
		c.configInterrupt()
	}
}

func (c *core) configInterrupt() {
	c.isr.Or(isrConfig)
	if err := c.interrupt(configInterrupt); err != nil {
		c.report(err)
	}
}

// fail puts the device out of order until the driver resets it (§2.1.2).
func (c *core) fail(err error) {
	s := err.Error()
	c.lastError.Store(&s)
	c.report(err)
	if c.status.Or(StatusNeedsReset)&StatusDriverOK != 0 {
		c.configInterrupt()
	}
}

func (c *core) report(err error) {
	if c.opts.Log != nil && c.log.allow(time.Now()) {
		c.opts.Log(fmt.Errorf("virtio device %s: %w", c.spec.Name, err))
	}
}

func (c *core) fault(queue int, section, format string, args ...any) {
	c.fail(Fault(queue, section, format, args...))
}

// deviceFeatures is the selected half of what is offered (§4.1.4.3, §4.2.2).
func (c *core) deviceFeatures() uint32 { return half(c.offered, c.deviceSel) }

func half(v uint64, sel uint32) uint32 {
	if sel > 1 {
		return 0
	}
	return uint32(v >> (32 * sel))
}

// setDriverFeatures takes a half of the driver's choice. It is fixed once
// FEATURES_OK is set (§2.2.1).
func (c *core) setDriverFeatures(v uint32) {
	if c.status.Load()&StatusFeaturesOK != 0 || c.driverSel > 1 {
		return
	}
	c.driverFeatures = setHalf(c.driverFeatures, c.driverSel, v)
}

func setHalf(old uint64, sel, v uint32) uint64 {
	shift := 32 * sel
	return old&^(0xffffffff<<shift) | uint64(v)<<shift
}

// setStatus is a driver's write to the status register (§2.1, §3.1.1).
func (c *core) setStatus(v uint8) {
	if v == 0 {
		c.reset()
		return
	}
	if c.lingers {
		return // still in reset
	}
	// Bits stay until reset: a driver must not clear one (§2.1.1).
	added := uint32(v) & driverStatus &^ c.status.Load()
	if added&StatusFeaturesOK != 0 && !c.featuresFit() {
		added &^= StatusFeaturesOK
	}
	now := c.status.Or(added) | added
	if added&StatusDriverOK != 0 {
		c.driverReady(now)
	}
}

// featuresFit says whether the device works with the driver's choice. A driver
// without VERSION_1 is a legacy one, whose rings differ (§6.1, §6.3).
func (c *core) featuresFit() bool {
	return c.driverFeatures&^c.offered == 0 && c.driverFeatures&FeatureVersion1 != 0
}

// driverReady is DRIVER_OK: the queues as configured come to life.
func (c *core) driverReady(status uint32) {
	if status&StatusFeaturesOK == 0 {
		c.fault(-1, "3.1.1", "DRIVER_OK before FEATURES_OK")
		return
	}
	if err := c.makeQueues(nil); err != nil {
		c.fail(err)
		return
	}
	c.begin()
}

// makeQueues builds the queues that the driver enabled. at has the ring
// positions of queues that had a life before a snapshot; nil for new ones.
func (c *core) makeQueues(at []QueueState) error {
	for i := range c.queues {
		s := &c.queues[i]
		s.live = nil
		if !s.ready {
			continue
		}
		cfg := c.queueConfig(i)
		if at != nil {
			cfg.NextAvail, cfg.NextUsed = at[i].NextAvail, at[i].NextUsed
		}
		q, err := NewQueue(c.mem, cfg, s.bell, s.irq)
		if err != nil {
			return err
		}
		q.tracer = &c.tracer
		if c.opts.Patient {
			q.stopped, q.asleep = &c.stopped, at != nil
		}
		s.live = q
	}
	return nil
}

func (c *core) queueConfig(i int) QueueConfig {
	s := &c.queues[i]
	return QueueConfig{Index: i, Size: s.size, Features: c.driverFeatures,
		Desc: memory.Addr(s.desc), Avail: memory.Addr(s.avail), Used: memory.Addr(s.used)}
}

// queue is the selected queue; nil where there is none of that number.
func (c *core) queue() *queueState {
	if uint64(c.queueSel) >= uint64(len(c.queues)) {
		return nil
	}
	return &c.queues[c.queueSel]
}

// editable is the selected queue where its configuration may be written:
// before it is enabled (§4.1.4.3.2, §4.2.2.2).
func (c *core) editable() *queueState {
	if s := c.queue(); s != nil && !s.ready {
		return s
	}
	return nil
}

// setSize takes the driver's choice of a size; what no queue can have is
// refused when the queue is enabled.
func (c *core) setSize(v uint32) {
	if s := c.editable(); s != nil {
		s.size = uint16(min(v, 0xffff))
	}
}

// enableQueue enables the selected queue after a look at where it lies.
func (c *core) enableQueue() {
	s := c.editable()
	if s == nil {
		return
	}
	i := int(c.queueSel)
	switch {
	case c.status.Load()&StatusDriverOK != 0:
		c.fault(i, "3.1.1", "enabled after DRIVER_OK")
		return
	case s.size > c.spec.QueueMax[i]:
		c.fault(i, "4.2.2.2", "size %d, and the most is %d", s.size, c.spec.QueueMax[i])
		return
	}
	q := Queue{mem: c.mem, cfg: c.queueConfig(i)}
	if err := q.check(); err != nil {
		c.fail(err)
		return
	}
	s.ready = true
}

// disableQueue takes the selected queue back from the device (§4.2.2.2). The
// others go on.
func (c *core) disableQueue() {
	s := c.queue()
	if s == nil || !s.ready || c.lingers {
		return
	}
	if s.live != nil && !c.end() {
		c.linger()
		return
	}
	s.ready, s.live = false, nil
	c.begin()
}

// notify is a driver's notification that arrived as an access.
func (c *core) notify(queue uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if uint64(queue) < uint64(len(c.queues)) {
		c.queues[queue].bell.Ring()
	}
}

// readConfig reads device-specific configuration space; past its end it is
// zero.
func (c *core) readConfig(off uint64, p []byte) {
	clear(p)
	if off < c.spec.ConfigLen {
		c.dev.ReadConfig(off, p[:min(uint64(len(p)), c.spec.ConfigLen-off)])
	}
}

func (c *core) writeConfig(off uint64, p []byte) {
	if off < c.spec.ConfigLen {
		c.dev.WriteConfig(off, p[:min(uint64(len(p)), c.spec.ConfigLen-off)])
	}
}

// limiter lets a few lines through and then one in a while, so that a guest
// cannot fill a log.
type limiter struct {
	mu     sync.Mutex
	tokens int
	since  time.Time
}

const (
	limiterBurst = 5
	limiterEvery = 10 * time.Second
)

func (l *limiter) allow(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.since.IsZero() {
		l.tokens, l.since = limiterBurst, now
	}
	if n := int(now.Sub(l.since) / limiterEvery); n > 0 {
		l.tokens, l.since = min(limiterBurst, l.tokens+n), now
	}
	if l.tokens == 0 {
		return false
	}
	l.tokens--
	return true
}
