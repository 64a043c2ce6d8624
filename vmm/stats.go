package vmm

import (
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
)

// Accelerator is what executes the guest: not AccelAuto.
func (m *Machine) Accelerator() Accelerator { return m.vm.Kind() }

// CPUStats are a CPU's counters.
type CPUStats struct {
	Time  time.Duration     // that its thread has run; 0 where the host does not tell
	Exits map[string]uint64 // by reason
}

// CPUStats returns the counters of every CPU. Keeping them costs an exit one
// load and one store, whether or not somebody reads them.
func (m *Machine) CPUStats() []CPUStats {
	stats := make([]CPUStats, len(m.cpus))
	for i, c := range m.cpus {
		stats[i] = CPUStats{Time: threadTime(int(c.thread.Load())), Exits: c.hits.Map()}
	}
	return stats
}

// VirtioDevices returns what there is to see of each virtio device. The machine
// must not have been closed.
func (m *Machine) VirtioDevices() []virtio.Info {
	var infos []virtio.Info
	for _, s := range m.virtio {
		infos = append(infos, s.Inspect())
	}
	return infos
}

// Instructions is how many instructions the software CPU has executed, of all
// CPUs, when Run has returned; ok is false under KVM, which does not count.
func (m *Machine) Instructions() (n uint64, ok bool) {
	v, ok := m.vm.(softVM)
	if !ok {
		return 0, false
	}
	return v.Executed(), true
}
