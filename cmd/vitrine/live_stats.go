package main

import (
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio/blk"
	virtionet "github.com/vitrine-vmm/vitrine/devices/virtio/net"
	"github.com/vitrine-vmm/vitrine/vmm/control"
)

// Stats implements control.Machine. Nothing of it is kept while nobody asks,
// but for the counters that devices and CPUs have anyway.
func (v *live) Stats() (control.Stats, error) {
	v.looks.RLock()
	defer v.looks.RUnlock()
	m, l, err := v.now()
	if err != nil {
		return control.Stats{}, err
	}
	s := control.Stats{
		Time: time.Now(), CPUTime: processTime(),
		Disks:    make(map[string]control.DiskStats),
		Networks: make(map[string]control.NetworkStats),
		Queues:   make(map[string][]control.QueueStats),
	}
	for _, c := range m.CPUStats() {
		s.GuestTime += c.Time
		s.VCPUs = append(s.VCPUs, control.VCPUStats{Time: c.Time, Exits: c.Exits})
	}
	for _, d := range l.devices {
		switch d := d.(type) {
		case *blk.Device:
			s.Disks[d.Spec().Name] = diskStats(d.Stats())
		case *virtionet.Device:
			s.Networks[d.Spec().Name] = networkStats(d.Stats())
		}
	}
	for _, d := range m.VirtioDevices() {
		for _, q := range d.Queues {
			s.Queues[d.Name] = append(s.Queues[d.Name], control.QueueStats{
				Chains: q.Pushed, Kicks: q.Kicks, Interrupts: q.Interrupts, Suppressed: q.SuppressedInterrupts, InFlight: q.InFlight,
			})
		}
	}
	s.Memory, err = memoryStats(m.Memory())
	return s, err
}

func diskStats(s blk.Stats) control.DiskStats {
	return control.DiskStats{
		Reads: s.Reads, Writes: s.Writes, Flushes: s.Flushes, Discards: s.Discards,
		ReadBytes: s.ReadBytes, WrittenBytes: s.WrittenBytes, Errors: s.Errors,
	}
}

func networkStats(s virtionet.Stats) control.NetworkStats {
	return control.NetworkStats{
		RxFrames: s.ToGuest.Frames, RxBytes: s.ToGuest.Bytes, RxDropped: s.ToGuest.Dropped,
		TxFrames: s.FromGuest.Frames, TxBytes: s.FromGuest.Bytes, TxDropped: s.FromGuest.Dropped,
	}
}
