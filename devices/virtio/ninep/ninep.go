// Package ninep is the 9P transport device of virtio (device type 9): a file
// server's protocol, 9P2000.L, over one virtqueue. A request is one chain: the
// T-message in its readable part, room for the R-message in its writable part.
// The device type has no section of its own in VIRTIO 1.2; Linux's
// net/9p/trans_virtio.c is what drivers follow.
//
// A library, p9.Server, understands the protocol. Only the data of reads and
// writes passes it by: it goes between the file and guest memory in one step,
// when the server, after all its checks, reads or writes the file.
package ninep

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/hugelgupf/p9/p9"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
)

// FeatureMountTag says that the configuration space has the name that a guest
// mounts.
const FeatureMountTag = 1 << 0

const (
	queueSize = 128
	maxTag    = 255
)

// Options describe a device.
type Options struct {
	Name   string      // for messages; default "9p"
	Tag    string      // what a guest mounts, 1 to 255 bytes
	Attach p9.Attacher // the files
}

// Device is a 9P transport device.
type Device struct {
	opts   Options
	config []byte // tag length le16, tag

	// mu protects session: the guest's connection, which outlives a pause.
	mu      sync.Mutex
	session *session
}

var (
	_ virtio.Device   = (*Device)(nil)
	_ virtio.Resetter = (*Device)(nil)
	_ virtio.Stater   = (*Device)(nil)
)

// New returns a device that serves the files of o.Attach.
func New(o Options) (*Device, error) {
	if o.Name == "" {
		o.Name = "9p"
	}
	if len(o.Tag) == 0 || len(o.Tag) > maxTag {
		return nil, fmt.Errorf("%s: tag %q: want 1 to %d bytes", o.Name, o.Tag, maxTag)
	}
	if o.Attach == nil {
		return nil, errors.New(o.Name + ": no files")
	}
	config := binary.LittleEndian.AppendUint16(nil, uint16(len(o.Tag)))
	return &Device{opts: o, config: append(config, o.Tag...)}, nil
}

// Spec implements virtio.Device.
func (d *Device) Spec() virtio.Spec {
	return virtio.Spec{ID: virtio.ID9P, Features: FeatureMountTag, QueueMax: []uint16{queueSize},
		ConfigLen: uint64(len(d.config)), Name: d.opts.Name}
}

// ReadConfig implements virtio.Device.
func (d *Device) ReadConfig(off uint64, p []byte) {
	clear(p)
	if off < uint64(len(d.config)) {
		copy(p, d.config[off:])
	}
}

// WriteConfig implements virtio.Device: nothing may be written.
func (d *Device) WriteConfig(uint64, []byte) {}

// Serve implements virtio.Device.
func (d *Device) Serve(ctx context.Context, _ uint64, qs []*virtio.Queue) error {
	return virtio.Work(ctx, qs, func(ctx context.Context, q *virtio.Queue) error {
		s := d.connect()
		s.attach(q)
		for ctx.Err() == nil {
			c, ok, err := q.Pop()
			if err == nil && ok {
				err = s.request(c)
			} else if err == nil {
				err = q.Wait()
			}
			if err = errors.Join(err, s.failure()); err != nil {
				d.drop(s)
				return errors.Join(err, s.detach())
			}
		}
		return s.detach()
	})
}

// connect returns the session, a new one if there is none.
func (d *Device) connect() *session {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.session == nil {
		d.session = newSession(d.opts.Attach)
	}
	return d.session
}

// drop ends a session that has failed.
func (d *Device) drop(s *session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.session == s {
		d.session = nil
	}
	s.close()
}

// Reset implements virtio.Resetter: the connection ends and its files are
// closed.
func (d *Device) Reset() {
	d.mu.Lock()
	s := d.session
	d.session = nil
	d.mu.Unlock()
	if s != nil {
		<-s.close()
	}
}

// Close ends the guest's connection for good; Serve must have returned.
func (d *Device) Close() { d.Reset() }

// State implements virtio.Stater. Open files are the host's and cannot go into
// a snapshot, so a guest that uses the share has none.
func (d *Device) State() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.session != nil && d.session.used() {
		return nil, fmt.Errorf("%s: the guest has %q mounted, and open files of the host cannot be saved: unmount it first", d.opts.Name, d.opts.Tag)
	}
	return []byte(`{"version":1}`), nil
}

// SetState implements virtio.Stater.
func (d *Device) SetState(b []byte) error {
	if string(b) != `{"version":1}` {
		return fmt.Errorf("%s: unknown state", d.opts.Name)
	}
	return nil
}
