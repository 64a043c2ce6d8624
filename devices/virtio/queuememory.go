package virtio

import "github.com/vitrine-vmm/vitrine/vmm/memory"

// Memory is the guest memory that the queue lies in, for devices whose
// requests name pages of it (a balloon).
func (q *Queue) Memory() *memory.Guest { return q.mem }
