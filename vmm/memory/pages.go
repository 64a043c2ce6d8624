package memory

import "fmt"

// Pages is what pages of the host's guest memory is made of.
type Pages uint8

// Kinds of pages.
const (
	Usual       Pages = iota // as the host does by itself
	Transparent              // large ones where the host finds some (madvise MADV_HUGEPAGE)
	Huge2M                   // reserved pages of 2 MiB
)

const hugePage = 2 << 20

// NewOf is New with memory of the given pages. With Huge2M the size must be a
// multiple of 2 MiB.
func NewOf(size uint64, pages Pages) (*Guest, error) {
	if pages == Usual {
		return New(size)
	}
	if size == 0 || size%hugePage != 0 {
		return nil, fmt.Errorf("guest memory: size %d is not a positive multiple of 2 MiB, as huge pages need", size)
	}
	g := NewEmpty()
	low := min(size, uint64(HoleStart))
	err := g.addPages(0, low, pages)
	if err == nil && size > low {
		err = g.addPages(HoleEnd, size-low, pages)
	}
	if err != nil {
		_ = g.Close()
		return nil, err
	}
	return g, nil
}

func (g *Guest) addPages(base Addr, size uint64, pages Pages) error {
	b, unmap, err := mapPages(size, pages)
	if err != nil {
		return fmt.Errorf("guest memory: map %d bytes: %w", size, err)
	}
	return g.add(Region{Base: base, Bytes: b, Kind: RAM, unmap: unmap})
}
