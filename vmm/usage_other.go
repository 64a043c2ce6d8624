//go:build !linux

package vmm

import "github.com/vitrine-vmm/vitrine/vmm/trace"

// cpuUsage: this host does not tell.
func (m *Machine) cpuUsage() []trace.Usage { return nil }
