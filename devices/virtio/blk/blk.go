// Package blk is the block device of VIRTIO 1.2 §5.2: a disk for the guest
// over a Backend.
//
// A request is one descriptor chain: a 16-byte header, data, and a status byte
// that is the last writable byte, however the driver cut them into buffers:
//
//	readable: | type le32 | reserved le32 | sector le64 | data of a write … |
//	writable: | data of a read … | status u8 |
package blk

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/bits"
	"sync/atomic"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
)

// Feature bits (virtio 1.2 §5.2.3).
const (
	FeatureSizeMax     = 1 << 1
	FeatureSegMax      = 1 << 2
	FeatureReadOnly    = 1 << 5
	FeatureBlkSize     = 1 << 6
	FeatureFlush       = 1 << 9
	FeatureTopology    = 1 << 10
	FeatureConfigWCE   = 1 << 11
	FeatureMQ          = 1 << 12
	FeatureDiscard     = 1 << 13
	FeatureWriteZeroes = 1 << 14
)

// Limits that the configuration space announces. Together they bound what one
// request can ask for.
const (
	sizeMax       = 1 << 20                 // bytes in one segment
	maxRequest    = 256 << 20               // bytes in one request
	maxSectors    = 1 << 21                 // one discard or write-zeroes: 1 GiB
	configLen     = 60                      // up to the secure-erase fields
	writebackAt   = 32                      // offset of the only writable field
	defaultQueue  = 256                     // entries
	maxQueues     = 64                      // sanity: one per vCPU is enough
	idLength      = 20                      // VIRTIO_BLK_ID_BYTES
	minQueue      = 4                       // header, data, status, and room
	maxQueueLimit = virtio.MaxQueueSize     // a power of two
	maxDiscard    = maxSectors * SectorSize // bytes
)

// Options are what a device can be told beyond its back end.
type Options struct {
	Name      string // for messages; default "blk"
	Queues    int    // default 1; one a vCPU is the most that is of use
	QueueSize uint16 // entries of each queue, a power of two; default 256
}

// Device is a virtio block device.
type Device struct {
	backend   Backend
	info      Info
	opts      Options
	writeback atomic.Bool // the cache mode that CONFIG_WCE sets (§5.2.5.1)
	stats     counters
}

var (
	_ virtio.Device   = (*Device)(nil)
	_ virtio.Resetter = (*Device)(nil)
	_ virtio.Stater   = (*Device)(nil)
)

// New returns a device for the disk b. Who made b closes it, after the device
// has stopped.
func New(b Backend, opts Options) (*Device, error) {
	if opts.Name == "" {
		opts.Name = "blk"
	}
	if opts.Queues == 0 {
		opts.Queues = 1
	}
	if opts.QueueSize == 0 {
		opts.QueueSize = defaultQueue
	}
	info := b.Info()
	switch {
	case opts.Queues < 1 || opts.Queues > maxQueues:
		return nil, fmt.Errorf("%s: %d queues: want 1 to %d", opts.Name, opts.Queues, maxQueues)
	case opts.QueueSize < minQueue || bits.OnesCount16(opts.QueueSize) != 1:
		return nil, fmt.Errorf("%s: queues of %d entries: want a power of two of at least %d", opts.Name, opts.QueueSize, minQueue)
	case info.Size < 0 || info.Size%SectorSize != 0:
		return nil, fmt.Errorf("%s: a disk of %d bytes: want a multiple of %d", opts.Name, info.Size, SectorSize)
	}
	if info.BlockSize == 0 {
		info.BlockSize = SectorSize
	}
	info.PhysicalBlock = max(info.PhysicalBlock, info.BlockSize)
	if bits.OnesCount(uint(info.BlockSize)) != 1 || bits.OnesCount(uint(info.PhysicalBlock)) != 1 || info.BlockSize < SectorSize {
		return nil, fmt.Errorf("%s: block sizes %d and %d: want powers of two of at least %d", opts.Name, info.BlockSize, info.PhysicalBlock, SectorSize)
	}
	d := &Device{backend: b, info: info, opts: opts}
	d.writeback.Store(true)
	return d, nil
}

// Spec implements virtio.Device.
func (d *Device) Spec() virtio.Spec {
	f := uint64(FeatureSizeMax | FeatureSegMax | FeatureBlkSize | FeatureTopology | FeatureFlush | FeatureConfigWCE)
	if d.info.ReadOnly {
		f |= FeatureReadOnly
	}
	if d.info.Discard {
		f |= FeatureDiscard
	}
	if d.info.WriteZeroes {
		f |= FeatureWriteZeroes
	}
	if d.opts.Queues > 1 {
		f |= FeatureMQ
	}
	sizes := make([]uint16, d.opts.Queues)
	for i := range sizes {
		sizes[i] = d.opts.QueueSize
	}
	return virtio.Spec{ID: virtio.IDBlock, Features: f, QueueMax: sizes, ConfigLen: configLen, Name: d.opts.Name}
}

// ReadConfig implements virtio.Device.
func (d *Device) ReadConfig(off uint64, p []byte) {
	clear(p)
	if off < configLen {
		c := d.config()
		copy(p, c[off:])
	}
}

// config lays out struct virtio_blk_config (§5.2.4).
func (d *Device) config() (c [configLen]byte) {
	le := binary.LittleEndian
	block := d.info.BlockSize
	le.PutUint64(c[0:], uint64(d.info.Size/SectorSize))
	le.PutUint32(c[8:], sizeMax)
	le.PutUint32(c[12:], uint32(d.segMax()))
	le.PutUint32(c[20:], uint32(block))
	c[24] = uint8(bits.Len(uint(d.info.PhysicalBlock/block)) - 1)
	le.PutUint16(c[26:], uint16(min(d.info.PhysicalBlock/block, math.MaxUint16)))
	le.PutUint32(c[28:], uint32(d.info.OptimalIO/block))
	if d.writeback.Load() {
		c[writebackAt] = 1
	}
	le.PutUint16(c[34:], uint16(d.opts.Queues))
	if d.info.Discard {
		le.PutUint32(c[36:], maxSectors)
		le.PutUint32(c[40:], 1)
		le.PutUint32(c[44:], uint32(max(d.info.DiscardAlign, block)/SectorSize))
	}
	if d.info.WriteZeroes {
		le.PutUint32(c[48:], maxSectors)
		le.PutUint32(c[52:], 1)
		c[56] = 1 // unmapping is allowed
	}
	return c
}

// segMax leaves two entries for header and status.
func (d *Device) segMax() int { return int(d.opts.QueueSize) - 2 }

// WriteConfig implements virtio.Device: a driver may change the cache mode,
// and nothing else (§5.2.4).
func (d *Device) WriteConfig(off uint64, p []byte) {
	if off <= writebackAt && writebackAt-off < uint64(len(p)) {
		d.writeback.Store(p[writebackAt-off]&1 != 0)
	}
}

// Reset implements virtio.Resetter.
func (d *Device) Reset() { d.writeback.Store(true) }

// state is what a snapshot keeps of the device.
type state struct {
	Version   int  `json:"version"`
	Writeback bool `json:"writeback"`
}

// State implements virtio.Stater.
func (d *Device) State() ([]byte, error) {
	return json.Marshal(state{Version: 1, Writeback: d.writeback.Load()})
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
	d.writeback.Store(s.Writeback)
	return nil
}
