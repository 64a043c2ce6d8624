package virtio

import (
	"encoding/binary"
	"fmt"
)

// PushAll gives several chains back at once, written[i] bytes of cs[i]: the
// driver sees all of them or none. A frame in several receive buffers needs
// that (virtio 1.2 §5.1.6.4), and for many chains it is cheaper than Push.
func (q *Queue) PushAll(cs []*Chain, written []uint32) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, c := range cs {
		if written[i] > c.writableLen {
			return fmt.Errorf("virtio queue %d: %d bytes written to %d: %w", q.cfg.Index, written[i], c.writableLen, errDevice)
		}
		if t := q.tracer.Load(); t != nil {
			(*t).Pushed(q.cfg.Index, c, written[i])
		}
		if err := q.settle(c, written[i]); err != nil {
			return err
		}
		if q.revoked {
			continue
		}
		elem, err := q.mem.WritableBytes(q.cfg.Used+ringHeader+usedElem*q.mask(q.used), usedElem)
		if err != nil {
			return err
		}
		binary.LittleEndian.PutUint64(elem, uint64(written[i])<<32|uint64(c.head))
		q.used++
		q.pushed++
		q.unnotified++
	}
	if q.revoked || len(cs) == 0 {
		return nil
	}
	// The store has release ordering: the elements before the index (§2.7.8.2).
	return q.mem.StoreUint16(q.cfg.Used+ringIdx, q.used)
}
