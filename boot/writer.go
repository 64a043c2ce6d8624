package boot

import (
	"encoding/binary"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// writer stores little-endian values in guest memory and keeps the first
// error.
type writer struct {
	g   *memory.Guest
	err error
}

func (w *writer) bytes(a memory.Addr, p []byte) {
	if err := w.g.WriteAt(p, a); err != nil && w.err == nil {
		w.err = err
	}
}

func (w *writer) uint16(a memory.Addr, v uint16) {
	w.bytes(a, binary.LittleEndian.AppendUint16(nil, v))
}
