package softcpu

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"runtime/pprof"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// testConsole is as much of a 16550 as Linux's driver needs for output.
type testConsole struct {
	lcr, ier, mcr, scr, dll byte
	out                     bytes.Buffer
	irq                     func() error
	echo, bol               bool
	start                   time.Time
}

func (u *testConsole) write(off uint16, b byte) {
	switch off {
	case 0:
		if u.lcr&0x80 != 0 {
			u.dll = b
			return
		}
		u.out.WriteByte(b)
		if u.echo {
			if u.bol {
				fmt.Printf("%7.3f ", time.Since(u.start).Seconds())
			}
			u.bol = b == '\n'
			os.Stdout.Write([]byte{b})
		}
		if u.ier&2 != 0 {
			_ = u.irq()
		}
	case 1:
		if u.lcr&0x80 == 0 {
			u.ier = b
			if b&2 != 0 {
				_ = u.irq()
			}
		}
	case 3:
		u.lcr = b
	case 4:
		u.mcr = b
	case 7:
		u.scr = b
	}
}

func (u *testConsole) read(off uint16) byte {
	switch off {
	case 0:
		if u.lcr&0x80 != 0 {
			return u.dll
		}
	case 1:
		if u.lcr&0x80 == 0 {
			return u.ier
		}
	case 2:
		if u.ier&2 != 0 {
			return 0xc2
		}
		return 0xc1
	case 3:
		return u.lcr
	case 4:
		return u.mcr
	case 5:
		return 0x60
	case 6:
		return 0xb0
	case 7:
		return u.scr
	}
	return 0
}

// loadKernel puts an ELF kernel, an initial RAM disk and a command line into
// memory and sets the registers as the 64-bit boot protocol says (Linux
// Documentation/arch/x86/boot.rst).
func loadKernel(t testing.TB, g *memory.Guest, v *VCPU, cpus int, kernel, initrd, cmdline string) {
	t.Helper()
	f, err := elf.Open(kernel)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD {
			continue
		}
		b, err := g.WritableBytes(memory.Addr(p.Paddr), p.Filesz)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
	}
	ram := g.Regions()[0].Bytes
	le := binary.LittleEndian
	zero := ram[0x7000:]
	if initrd != "" {
		b, err := os.ReadFile(initrd)
		if err != nil {
			t.Fatal(err)
		}
		at := (len(ram) - len(b) - 4096) &^ 4095
		copy(ram[at:], b)
		le.PutUint32(zero[0x218:], uint32(at))
		le.PutUint32(zero[0x21c:], uint32(len(b)))
	}
	copy(ram[0x20000:], cmdline+"\x00")
	le.PutUint16(zero[0x1fe:], 0xaa55)
	le.PutUint32(zero[0x202:], 0x53726448)
	zero[0x210] = 0xff
	le.PutUint32(zero[0x228:], 0x20000)
	le.PutUint32(zero[0x238:], uint32(len(cmdline)))
	zero[0x1e8] = 2
	e820 := func(i int, base, size uint64) {
		e := zero[0x2d0+20*i:]
		le.PutUint64(e, base)
		le.PutUint64(e[8:], size)
		le.PutUint32(e[16:], 1)
	}
	e820(0, 0, 0x9fc00)
	e820(1, 0x100000, uint64(len(ram))-0x100000)
	writeMPTable(ram[0x9fc00:0xa0000], cpus)
	le.PutUint64(ram[0x9000:], 0xa003)
	le.PutUint64(ram[0xa000:], 0xb003)
	for i := range uint64(512) {
		le.PutUint64(ram[0xb000+8*i:], i<<21|0x83)
	}
	le.PutUint64(ram[0x510:], 0x00af9b000000ffff)
	le.PutUint64(ram[0x518:], 0x00cf93000000ffff)
	s, _ := v.Sregs()
	s.CR3, s.CR4, s.CR0, s.EFER = 0x9000, 0x20, 0x80050033, 0x500
	s.GDT = x86.DTable{Base: 0x500, Limit: 0x1f}
	cs := x86.Segment{Limit: ^uint32(0), Selector: 0x10, Type: 11, Present: 1, S: 1, L: 1, G: 1}
	ds := x86.Segment{Limit: ^uint32(0), Selector: 0x18, Type: 3, Present: 1, S: 1, DB: 1, G: 1}
	s.CS, s.DS, s.ES, s.FS, s.GS, s.SS = cs, ds, ds, ds, ds, ds
	if err := v.SetSregs(&s); err != nil {
		t.Fatal(err)
	}
	if err := v.SetRegs(&x86.Regs{RIP: f.Entry, RSP: 0x8ff0, RSI: 0x7000, RFLAGS: 2}); err != nil {
		t.Fatal(err)
	}
}

// writeMPTable describes n CPUs, an I/O APIC and the ISA interrupts
// (MultiProcessor Specification 1.4, chapter 4).
func writeMPTable(b []byte, n int) {
	clear(b)
	le := binary.LittleEndian
	sum := func(b []byte) (s byte) {
		for _, x := range b {
			s += x
		}
		return s
	}
	copy(b, "_MP_")
	le.PutUint32(b[4:], 0x9fc10)
	b[8], b[9] = 1, 4
	b[10] = -sum(b[:16])
	t := b[16:]
	copy(t, "PCMP")
	t[6] = 4
	copy(t[8:], "VITRINE VITRINE TEST")
	le.PutUint32(t[36:], 0xfee00000)
	q, entries := 44, 0
	add := func(p ...byte) { q += copy(t[q:], p); entries++ }
	for i := range n {
		boot := byte(1)
		if i == 0 {
			boot = 3
		}
		add(0, byte(i), 0x14, boot, 0, 6, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	}
	add(1, 0, 'I', 'S', 'A', ' ', ' ', ' ')
	add(2, byte(n), 0x11, 1, 0, 0, 0xc0, 0xfe)
	for i := range byte(16) {
		pin := i
		if i == 0 {
			pin = 2
		}
		if i != 2 {
			add(3, 0, 0, 0, 0, i, byte(n), pin)
		}
	}
	add(4, 3, 0, 0, 0, 0, 0, 0)
	add(4, 1, 0, 0, 0, 0, 0xff, 1)
	le.PutUint16(t[4:], uint16(q))
	le.PutUint16(t[34:], uint16(entries))
	t[7] = -sum(t[:q])
}

// TestKernel boots the kernel that VITRINE_KERNEL names. It is for measuring:
// VITRINE_INITRD, VITRINE_CMDLINE, VITRINE_CPUS, VITRINE_TIME, VITRINE_STOP
// (text at which to end), VITRINE_PROFILE.
func TestKernel(t *testing.T) {
	kernel := os.Getenv("VITRINE_KERNEL")
	if kernel == "" {
		t.Skip("VITRINE_KERNEL is not set")
	}
	cmdline := os.Getenv("VITRINE_CMDLINE")
	if cmdline == "" {
		cmdline = "console=ttyS0 panic=-1 reboot=k"
	}
	k := newTestMachine(t, Options{Deterministic: os.Getenv("VITRINE_DET") != ""}, max(envNumber("VITRINE_CPUS"), 1))
	loadKernel(t, k.mem, k.cpus[0], len(k.cpus), kernel, os.Getenv("VITRINE_INITRD"), cmdline)
	k.console.echo = true
	k.stop = os.Getenv("VITRINE_STOP")
	if p := os.Getenv("VITRINE_PROFILE"); p != "" {
		f, err := os.Create(p)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		_ = pprof.StartCPUProfile(f)
		defer pprof.StopCPUProfile()
	}
	limit, err := time.ParseDuration(os.Getenv("VITRINE_TIME"))
	if err != nil {
		limit = 10 * time.Second
	}
	start := time.Now()
	k.console.start = start
	end := k.run(limit)
	d := time.Since(start)
	var n uint64
	for _, v := range k.cpus {
		n += v.c.icount
		fmt.Printf("cpu %d: rip %#x, %d instructions, attn %#x halted %v\n", v.c.id, v.c.rip, v.c.icount, v.c.attn.Load(), v.c.halted)
	}
	fmt.Printf("%v: %d instructions in %v: %.1f MIPS, %d exits\n", end, n, d, float64(n)/d.Seconds()/1e6, k.exits.Load())
}

func envNumber(name string) int {
	n, _ := strconv.Atoi(os.Getenv(name))
	return n
}

// testMachine is CPUs with a console and nothing else.
type testMachine struct {
	mem     *memory.Guest
	vm      *VM
	cpus    []*VCPU
	console testConsole
	stop    string // ends the run when it is printed
	exits   atomic.Int64
	mu      sync.Mutex // of the console
	done    atomic.Bool
}

func newTestMachine(t testing.TB, opts Options, n int) *testMachine {
	t.Helper()
	g, err := memory.New(128 << 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	opts.Unknown = func(cpu int, rip uint64, code []byte) { t.Logf("unknown instruction at %#x: % x", rip, code) }
	vm, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := vm.MapMemory(g); err != nil {
		t.Fatal(err)
	}
	k := &testMachine{mem: g, vm: vm}
	for id := range n {
		table, err := vm.SupportedCPUID()
		if err != nil {
			t.Fatal(err)
		}
		for i := range table {
			if table[i].Function == 1 {
				table[i].EBX |= uint32(n)<<16 | uint32(id)<<24
			}
			if table[i].Function == 0xb {
				table[i].EDX = uint32(id)
			}
		}
		v, err := vm.CreateVCPU(id, table)
		if err != nil {
			t.Fatal(err)
		}
		k.cpus = append(k.cpus, v)
	}
	if k.console.irq, err = vm.Line(4); err != nil {
		t.Fatal(err)
	}
	return k
}

// run runs all CPUs until the guest resets the machine, a CPU shuts down, or
// time is up. It returns the last exit of the CPU that ended it.
func (k *testMachine) run(limit time.Duration) x86.ExitReason {
	var wg sync.WaitGroup
	var last atomic.Uint32
	timer := time.AfterFunc(limit, func() {
		k.done.Store(true)
		k.kick()
	})
	defer timer.Stop()
	for _, v := range k.cpus {
		wg.Go(func() {
			reason, ended := k.runCPU(v)
			if ended {
				last.Store(uint32(reason))
			}
			k.done.Store(true)
			_ = v.Close()
			k.kick()
		})
	}
	wg.Wait()
	return x86.ExitReason(last.Load())
}

func (k *testMachine) kick() {
	for _, v := range k.cpus {
		_ = v.Kick()
	}
}

func (k *testMachine) runCPU(v *VCPU) (reason x86.ExitReason, ended bool) {
	for {
		x, err := v.Run()
		if err != nil {
			return x86.ExitUnknown, true
		}
		k.exits.Add(1)
		switch x.Reason {
		case x86.ExitIO:
			if !k.port(&x) {
				return x86.ExitReset, true
			}
		case x86.ExitMMIO:
			if !x.Write {
				fillOnes(x.Data)
			}
		case x86.ExitInterrupted:
			if k.done.Load() {
				return x.Reason, false
			}
		default:
			return x.Reason, true
		}
	}
}

func fillOnes(b []byte) {
	for i := range b {
		b[i] = 0xff
	}
}

// port answers an access; it returns false when the guest resets the machine.
func (k *testMachine) port(x *x86.Exit) bool {
	switch {
	case x.Port >= 0x3f8 && x.Port < 0x400 && x.Size == 1:
		k.mu.Lock()
		defer k.mu.Unlock()
		if !x.Write {
			x.Data[0] = k.console.read(x.Port - 0x3f8)
			return true
		}
		k.console.write(x.Port-0x3f8, x.Data[0])
		return k.stop == "" || !bytes.HasSuffix(k.console.out.Bytes(), []byte(k.stop))
	case x.Write:
		return x.Port != 0x64 || x.Data[0] != 0xfe
	}
	fillOnes(x.Data)
	if x.Port == 0x64 || x.Port == 0x71 { // keyboard controller ready, clock not updating
		x.Data[0] = 0
	}
	return true
}
