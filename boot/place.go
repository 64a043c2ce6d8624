package boot

import (
	"fmt"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// lowRAM is the end of the RAM that holds the first MiB and what follows it, 0
// if there is none.
func lowRAM(g *memory.Guest) uint64 {
	for _, r := range g.Regions() {
		if r.Kind == memory.RAM && r.Base == 0 {
			return uint64(r.End())
		}
	}
	return 0
}

// inRAM says whether the range is inside one region of RAM.
func inRAM(g *memory.Guest, from, end uint64) bool {
	for _, r := range g.Regions() {
		if r.Kind == memory.RAM && from >= uint64(r.Base) && end <= uint64(r.End()) {
			return true
		}
	}
	return false
}

// checkRAM makes sure that there is RAM for the structures below 1 MiB and
// where the kernel's segments go.
func (img *Image) checkRAM(g *memory.Guest, k *kernel) error {
	if lowRAM(g) < minMemory {
		return fmt.Errorf("the guest has no RAM from 0 to %#x", minMemory)
	}
	for i := range k.segments {
		if s := &k.segments[i]; !inRAM(g, s.addr, s.end()) {
			return img.tooLittle(g, k)
		}
	}
	return nil
}

// tooLittle says how much memory the kernel and the initrd need.
func (img *Image) tooLittle(g *memory.Guest, k *kernel) error {
	what, need := fmt.Sprintf("it takes the addresses %#x-%#x", k.low, k.end), k.end
	if img.Initrd != nil {
		if info, err := img.Initrd.Stat(); err == nil {
			what += fmt.Sprintf(" and the initrd %d MiB", mib(uint64(info.Size())))
			need += mib(uint64(info.Size())) << 20
		}
	}
	if need < k.end || need > uint64(memory.HoleStart) {
		return fmt.Errorf("%s: no guest has RAM there", what)
	}
	return fmt.Errorf("too little memory: %s, the guest has %d MiB: give it at least %d MiB",
		what, g.Size()>>20, mib(need))
}

// mib is n in MiB, rounded up.
func mib(n uint64) uint64 { return n>>20 + min(n&(1<<20-1), 1) }

// placeInitrd puts the initrd as high as RAM below 4 GiB and the kernel's own
// limit allow, on a page boundary, clear of the memory that the kernel works in
// before it looks at the map.
func (img *Image) placeInitrd(g *memory.Guest, k *kernel) (blob, error) {
	if img.Initrd == nil {
		return blob{}, nil
	}
	src, err := fileSource(img.Initrd, true)
	if err != nil {
		return blob{}, fmt.Errorf("initrd %q: %w", img.Initrd.Name(), err)
	}
	if src.size == 0 {
		return blob{}, nil
	}
	if img.UnpackInitrd {
		if src, err = img.unpackedInitrd(g, src); err != nil {
			return blob{}, fmt.Errorf("initrd %q: %w", img.Initrd.Name(), err)
		}
	}
	addr, ok := initrdAddr(src.size, min(lowRAM(g), k.initrdAddrMax+1), k.segments)
	if !ok {
		return blob{}, fmt.Errorf("kernel %q: %w", img.Kernel.Name(), img.tooLittle(g, k))
	}
	if err := src.place(g, memory.Addr(addr), 0, src.size); err != nil {
		return blob{}, fmt.Errorf("initrd %q: %w", img.Initrd.Name(), err)
	}
	return blob{addr, src.size}, nil
}

// unpackedInitrd is what a packed initrd unpacks to, or the initrd as it is. For a
// while the guest has that twice, there and in the file system that it makes of
// it: together at most half of its memory.
func (img *Image) unpackedInitrd(g *memory.Guest, packed source) (source, error) {
	limit := min(lowRAM(g)/4, maxUnpacked)
	if packed.size > limit {
		return packed, nil
	}
	b := make([]byte, packed.size)
	if err := readAt(packed, b, 0); err != nil {
		return source{}, err
	}
	if b, err := unpackInitrd(b, limit); err == nil {
		return bytesSource(b), nil
	}
	return packed, nil
}

// initrdAddr is the highest page-aligned address at which size bytes fit
// between 1 MiB and limit without touching a segment.
func initrdAddr(size, limit uint64, segments []segment) (uint64, bool) {
	for {
		if size > limit || limit-size < uint64(highMemory) {
			return 0, false
		}
		addr := (limit - size) &^ (memory.PageSize - 1)
		if addr < uint64(highMemory) {
			return 0, false
		}
		clash := false
		for i := range segments {
			if s := &segments[i]; s.addr < addr+size && addr < s.end() {
				// Each round ends below a segment that clashed, so a segment
				// clashes once at most.
				limit, clash = min(limit, s.addr), true
			}
		}
		if !clash {
			return addr, true
		}
	}
}
