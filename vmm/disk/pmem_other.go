//go:build !linux

package disk

import (
	"errors"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

var errNoPMEM = errors.New("persistent memory needs Linux")

// PMEM is a file to be a guest's persistent memory.
type PMEM struct{}

// OpenPMEM fails: files are shared with a guest's memory on Linux only.
func OpenPMEM(string, bool) (*PMEM, error) { return nil, errNoPMEM }

// OpenPMEMOver fails.
func OpenPMEMOver(string, *Layer) (*PMEM, error) { return nil, errNoPMEM }

// Changes is the layer that makes of the file what the guest has now.
func (*PMEM) Changes() (*Layer, error) { return nil, errNoPMEM }

// Size is the number of bytes.
func (*PMEM) Size() uint64 { return 0 }

// AddTo puts the file into guest memory at base.
func (*PMEM) AddTo(*memory.Guest, memory.Addr) error { return errNoPMEM }

// Flush makes what the guest wrote durable.
func (*PMEM) Flush() error { return errNoPMEM }

// Close closes the file.
func (*PMEM) Close() error { return nil }
