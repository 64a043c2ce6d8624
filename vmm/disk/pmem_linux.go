package disk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// pmemAlign is what the size of a persistent-memory file must be a multiple
// of, for Linux guests (devices/virtio/pmem).
const pmemAlign = 2 << 20

// PMEM is a file to be a guest's persistent memory.
type PMEM struct {
	f        *os.File
	size     uint64
	readOnly bool
	over     *Layer // of a file that is only read: what the guest has is otherwise
	region   []byte // with over: guest memory

	mu   sync.Mutex
	lost error // a flush that failed: what it was to keep cannot be told any more
}

// OpenPMEM opens and locks a file for a guest's persistent memory. Its size
// must be a multiple of 2 MiB.
func OpenPMEM(path string, readOnly bool) (_ *PMEM, err error) {
	f, err := openFile(path, readOnly, false)
	if err != nil {
		return nil, fmt.Errorf("persistent memory %s: %w", path, err)
	}
	p := &PMEM{f: f, readOnly: readOnly}
	if err := p.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("persistent memory %s: %w", path, err), f.Close())
	}
	return p, nil
}

// OpenPMEMOver opens a file for persistent memory whose content begins as the
// layer makes it, and which is never written to: what the guest writes is the
// machine's own, and Changes tells of it.
func OpenPMEMOver(path string, l *Layer) (*PMEM, error) {
	p, err := OpenPMEM(path, true)
	if err == nil {
		p.over = l
	}
	return p, err
}

func (p *PMEM) prepare() error {
	info, err := p.f.Stat()
	if err != nil {
		return err
	}
	switch n := info.Size(); {
	case !info.Mode().IsRegular():
		return errors.New("not a file")
	case n == 0 || n%pmemAlign != 0:
		return fmt.Errorf("%d bytes are not a multiple of 2 MiB: truncate -s %%2M makes it one", n)
	default:
		p.size = uint64(n)
	}
	return lock(p.f, !p.readOnly)
}

// Size is the number of bytes.
func (p *PMEM) Size() uint64 { return p.size }

// AddTo puts the file into guest memory at base. What the guest writes to a
// read-only file is its own, and lost at the end.
func (p *PMEM) AddTo(g *memory.Guest, base memory.Addr) error {
	if err := g.AddFile(base, p.f, 0, p.size, !p.readOnly, memory.PMEM, false); err != nil || p.over == nil {
		return err
	}
	var err error
	if p.region, err = g.Bytes(base, p.size); err != nil {
		return err
	}
	p.over.mu.Lock()
	defer p.over.mu.Unlock()
	for n, data := range p.over.blocks {
		switch at := n * layerBlock; {
		case uint64(at) >= p.size:
			return fmt.Errorf("persistent memory: a block at %d, and it ends at %d", at, p.size)
		case data == nil:
			clear(p.region[at : at+layerBlock])
		default:
			copy(p.region[at:], data)
		}
	}
	return nil
}

// Changes is the layer that makes of the file what the guest has now. It is
// only for what OpenPMEMOver opened, and for a guest that stands.
func (p *PMEM) Changes() (*Layer, error) {
	l, err := Difference(bytes.NewReader(p.region), p.f, int64(p.size))
	if err != nil {
		return nil, fmt.Errorf("persistent memory: %w", err)
	}
	return l, nil
}

// Flush makes what the guest wrote durable. fdatasync(2) covers the pages of
// shared mappings. After a failure every later flush fails too: the kernel
// reports lost pages once and then forgets them.
func (p *PMEM) Flush() error {
	if p.readOnly {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lost == nil {
		p.lost = ignoringEINTR(func() error { return unix.Fdatasync(int(p.f.Fd())) })
	}
	return p.lost
}

// Close closes the file, which ends its lock, after the guest memory that has it
// was closed.
func (p *PMEM) Close() error { return p.f.Close() }
