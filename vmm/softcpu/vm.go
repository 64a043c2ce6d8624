package softcpu

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/apic"
	"github.com/vitrine-vmm/vitrine/devices/bus"
	"github.com/vitrine-vmm/vitrine/devices/pic"
	"github.com/vitrine-vmm/vitrine/devices/pit"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// Options says how a software CPU behaves.
type Options struct {
	// Deterministic makes time advance with instructions, and CPUs take
	// turns of a fixed number of instructions: the same guest with the same
	// input does the same.
	Deterministic bool
	// Random is where RDRAND and RDSEED take their bits from; nil is
	// crypto/rand, or a fixed sequence with Deterministic.
	Random io.Reader
	// Unknown is called when a guest executes an instruction that does not
	// exist or is not provided, before it gets #UD. It may be nil.
	Unknown func(cpu int, rip uint64, code []byte)
}

// VM is a machine's CPUs and their interrupt controllers.
type VM struct {
	opts Options
	mem  *memory.Guest
	ram  []ramRegion

	// code has a bit for each page of RAM that some CPU has decoded code of.
	code []atomic.Uint64
	// storable has at least the pages that a CPU's TLB has for stores. It is of
	// the CPU whose turn it is.
	storable pageSet

	mu    sync.Mutex // guards cpus while they are created
	cpus  []*cpu
	start time.Time
	dirty dirtyLog
	turns turns
	// startTicks is the time at start: not 0 after a restore.
	startTicks uint64

	lines    sync.Mutex // one pulse at a time
	net      apic.Net
	pics     *pic.Pair
	pit      *pit.PIT
	pitTimer *time.Timer
	ports    *bus.Bus            // the accelerator's own I/O ports
	boot     atomic.Pointer[cpu] // the CPU that the 8259s are wired to
	bells    atomic.Pointer[[]*bell]
}

// ramRegion is a piece of guest memory.
type ramRegion struct {
	base     uint64
	bytes    []byte
	readOnly bool
}

// New makes a machine without memory and CPUs.
func New(opts Options) (*VM, error) {
	if opts.Random == nil {
		opts.Random = rand.Reader
		if opts.Deterministic {
			opts.Random = new(sequence)
		}
	}
	vm := &VM{opts: opts, start: time.Now()}
	return vm, vm.addChips()
}

// sequence is a fixed stream of bits (splitmix64).
type sequence struct{ s uint64 }

func (q *sequence) Read(p []byte) (int, error) {
	var b [8]byte
	for n := 0; n < len(p); {
		q.s += 0x9e3779b97f4a7c15
		z := q.s
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		binary.LittleEndian.PutUint64(b[:], z^z>>31)
		n += copy(p[n:], b[:])
	}
	return len(p), nil
}

func (vm *VM) random() uint64 {
	var b [8]byte
	if _, err := io.ReadFull(vm.opts.Random, b[:]); err != nil {
		return 0
	}
	return binary.LittleEndian.Uint64(b[:])
}

// MapMemory makes the regions of g the guest's memory.
func (vm *VM) MapMemory(g *memory.Guest) error {
	var end uint64
	for _, r := range g.Regions() {
		if uint64(r.End()) > physMask+1 {
			return fmt.Errorf("map memory: region at %#x ends beyond %d bits of address", uint64(r.Base), physBits)
		}
		vm.ram = append(vm.ram, ramRegion{uint64(r.Base), r.Bytes, r.ReadOnly})
		end = max(end, uint64(r.End()))
	}
	vm.mem, vm.dirty.end = g, memory.Addr(end)
	vm.code = make([]atomic.Uint64, (end/pageSize+63)/64)
	vm.storable = make(pageSet, len(vm.code))
	g.OnWrite(vm.written)
	return nil
}

// Now is the machine's time in nanoseconds. With deterministic time it may be
// asked for where no CPU executes: in what Run calls, after an exit, and by a
// device that a CPU waits for.
func (vm *VM) Now() uint64 { return vm.now() }

// SupportedCPUID is the table of the CPU model.
func (vm *VM) SupportedCPUID() ([]x86.CPUIDEntry, error) { return cpuidModel(), nil }

// Close releases the machine; its CPUs do not run any more.
func (vm *VM) Close() error {
	vm.pitTimer.Stop()
	vm.turns.pace.Stop()
	if vm.mem != nil {
		vm.mem.OnWrite(nil)
	}
	return nil
}

// pageSet is a set of physical pages.
type pageSet []uint64

func (s pageSet) add(phys uint64) { s[phys>>18] |= 1 << (phys >> 12 & 63) }

// take takes a page out, and says whether it was in.
func (s pageSet) take(phys uint64) bool {
	w, bit := phys>>18, uint64(1)<<(phys>>12&63)
	was := s[w]&bit != 0
	s[w] &^= bit
	return was
}

// watch notes that the page phys has code. It says whether that is news, and
// then no CPU has a way around stored any more.
func (vm *VM) watch(phys uint64) bool {
	w, bit := phys>>18, uint64(1)<<(phys>>12&63)
	if w >= uint64(len(vm.code)) || vm.code[w].Load()&bit != 0 {
		return false
	}
	vm.code[w].Or(bit)
	page, _ := vm.page(phys)
	if page == nil {
		return false
	}
	if !vm.storable.take(phys) {
		return true
	}
	for _, c := range vm.cpus {
		c.tlb.protect(page)
	}
	return true
}

// stored is called when the guest is about to store to the page phys for the
// first time since code in it was decoded: the code goes.
func (vm *VM) stored(phys uint64) {
	w, bit := phys>>18, uint64(1)<<(phys>>12&63)
	if w >= uint64(len(vm.code)) || vm.code[w].Load()&bit == 0 {
		return
	}
	vm.code[w].And(^bit)
	for _, c := range vm.cpus {
		c.dropPage(phys &^ pageMask)
	}
}

// written is memory.Guest's hook: a device is about to write n bytes at a. It
// runs on the device's goroutine, so the CPUs are told, and drop the code
// before their next block.
func (vm *VM) written(a memory.Addr, n uint64) {
	if n == 0 {
		return
	}
	for page := uint64(a) / pageSize; page <= (uint64(a)+n-1)/pageSize; page++ {
		if page/64 >= uint64(len(vm.code)) {
			return
		}
		if vm.code[page/64].Load()>>(page%64)&1 == 0 {
			continue
		}
		for _, c := range vm.cpus {
			c.code.mu.Lock()
			c.code.dirty = append(c.code.dirty, page*pageSize)
			c.code.mu.Unlock()
			c.signal(attnFlush)
		}
	}
}

// flushDirty drops the code of pages that devices wrote to.
func (c *cpu) flushDirty() {
	cc := &c.code
	cc.mu.Lock()
	defer cc.mu.Unlock()
	for _, phys := range cc.dirty {
		c.dropPage(phys)
	}
	cc.dirty = cc.dirty[:0]
}
