// Package console is the console device (virtio 1.2 §5.3) with one port, which
// Linux shows as /dev/hvc0.
package console

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"sync"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
)

// Features (§5.3.3).
const (
	featureSize      = 1 << 0
	featureEmergency = 1 << 2
)

// Queues of port 0 (§5.3.2).
const (
	receiveQueue  = 0
	transmitQueue = 1
	queueSize     = 64
)

// Configuration space (§5.3.4): cols, rows, max_nr_ports, emerg_wr.
const (
	configCols      = 0
	configRows      = 2
	configPorts     = 4
	configEmergency = 8
	configLen       = 12
)

// Device is a console, a virtio.Device.
type Device struct {
	name string
	in   *source
	out  *sink

	mu         sync.Mutex
	cols, rows uint16
	notify     func()
}

var (
	_ virtio.Device         = (*Device)(nil)
	_ virtio.ConfigNotifier = (*Device)(nil)
	_ virtio.Stater         = (*Device)(nil)
)

// New returns a console. What comes from in is the guest's input: it is read
// from when the guest's driver is ready, and no faster than the guest takes
// it; an error, io.EOF too, ends input. The guest's output goes to out, whose
// first error ends output. Either may be nil.
func New(name string, in io.Reader, out io.Writer) *Device {
	return &Device{name: name, in: newSource(in), out: newSink(out), notify: func() {}}
}

// Spec implements virtio.Device.
func (d *Device) Spec() virtio.Spec {
	return virtio.Spec{ID: virtio.IDConsole, Features: featureSize | featureEmergency,
		QueueMax: []uint16{queueSize, queueSize}, ConfigLen: configLen, Name: d.name}
}

// Resize tells the guest of the terminal's size in characters (§5.3.4).
func (d *Device) Resize(cols, rows uint16) {
	d.mu.Lock()
	changed := cols != d.cols || rows != d.rows
	d.cols, d.rows = cols, rows
	notify := d.notify
	d.mu.Unlock()
	if changed {
		notify()
	}
}

// OnConfigChange implements virtio.ConfigNotifier.
func (d *Device) OnConfigChange(notify func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.notify = notify
}

// ReadConfig implements virtio.Device.
func (d *Device) ReadConfig(off uint64, p []byte) {
	clear(p)
	if off >= configLen {
		return
	}
	var c [configLen]byte
	d.mu.Lock()
	binary.LittleEndian.PutUint16(c[configCols:], d.cols)
	binary.LittleEndian.PutUint16(c[configRows:], d.rows)
	d.mu.Unlock()
	binary.LittleEndian.PutUint32(c[configPorts:], 1)
	copy(p, c[off:])
}

// WriteConfig implements virtio.Device: a character to emerg_wr is put out
// whether or not the device is set up (§5.3.4, §5.3.4.2).
func (d *Device) WriteConfig(off uint64, p []byte) {
	if off <= configEmergency && configEmergency < off+uint64(len(p)) {
		d.out.emergency(p[configEmergency-off])
	}
}

// Serve implements virtio.Device.
func (d *Device) Serve(ctx context.Context, _ uint64, qs []*virtio.Queue) error {
	d.in.start()
	d.out.start()
	return virtio.Work(ctx, qs, func(ctx context.Context, q *virtio.Queue) error {
		if q.Index() == receiveQueue {
			return d.receive(ctx, q)
		}
		return d.transmit(ctx, q)
	})
}

// transmit puts out what the guest's port sends (§5.3.6).
func (d *Device) transmit(ctx context.Context, q *virtio.Queue) error {
	if !d.out.flush(ctx) {
		return nil
	}
	return virtio.Loop(ctx, q, func(c *virtio.Chain) (uint32, error) {
		if c.WritableLen() > 0 {
			return 0, virtio.Fault(transmitQueue, "5.3.6.1", "output has %d bytes to write to", c.WritableLen())
		}
		for _, s := range c.Readable() {
			d.out.write(ctx, s)
		}
		return 0, nil
	})
}

// receive gives the guest's buffers what came in. While nothing comes it does
// not look at the queue.
func (d *Device) receive(ctx context.Context, q *virtio.Queue) error {
	for d.in.wait(ctx) {
		c, ok, err := q.Pop()
		if err != nil {
			return err
		}
		if !ok {
			if err := q.Notify(); err != nil {
				return err
			}
			if err := q.Wait(); err != nil {
				return err
			}
			continue
		}
		if c.ReadableLen() > 0 {
			err = virtio.Fault(receiveQueue, "5.3.6.1", "a buffer for input has %d bytes to read", c.ReadableLen())
		}
		n := uint32(0)
		if err == nil {
			n = d.in.take(c.Writable())
		}
		if perr := q.Push(c, n); err == nil {
			err = perr
		}
		if err != nil {
			return err
		}
		if d.in.empty() {
			if err := q.Notify(); err != nil {
				return err
			}
		}
	}
	return q.Notify()
}

// state is the device's part of a snapshot.
type state struct {
	Version    int
	Cols, Rows uint16
	Input      []byte // read from the host, not yet taken by the guest
	Output     []byte // taken from the guest, not yet put out
}

const stateVersion = 1

// State implements virtio.Stater.
func (d *Device) State() ([]byte, error) {
	d.mu.Lock()
	s := state{Version: stateVersion, Cols: d.cols, Rows: d.rows}
	d.mu.Unlock()
	s.Input = d.in.pending()
	s.Output = d.out.carried()
	return json.Marshal(s)
}

// SetState implements virtio.Stater.
func (d *Device) SetState(b []byte) error {
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("console: %w", err)
	}
	if s.Version != stateVersion || len(s.Input) > inputSize || len(s.Output) > maxCarry {
		return fmt.Errorf("console: state of version %d with %d and %d bytes of input and output", s.Version, len(s.Input), len(s.Output))
	}
	d.mu.Lock()
	d.cols, d.rows = s.Cols, s.Rows
	d.mu.Unlock()
	d.in.refill(s.Input)
	d.out.carryOn(s.Output)
	return nil
}
