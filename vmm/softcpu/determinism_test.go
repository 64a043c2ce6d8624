package softcpu

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"sync"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// timersAndIPIs is a program for two CPUs. The first enables its local APIC,
// has its timer interrupt periodically, starts the second by INIT and SIPI,
// then counts, mixes what the time-stamp counter says into memory, tells and
// halts, twenty times:
//
//	mov ebx,0xfee00000; mov dword [rbx+0xf0],0x1ff; mov dword [rbx+0x3e0],0xb
//	mov dword [rbx+0x320],0x20050; mov dword [rbx+0x380],60000
//	mov dword [rbx+0x310],1<<24; mov dword [rbx+0x300],0x4500
//	mov dword [rbx+0x310],1<<24; mov dword [rbx+0x300],0x4609
//	sti; mov ebp,20
//	1: mov ecx,3000
//	2: lock inc dword [0x600]; rdtsc; xor [0x604],eax; imul eax,edx; dec ecx; jnz 2b
//	mov eax,[0x604]; out 0xe0,eax; hlt; dec ebp; jnz 1b
//	cli; mov al,0xff; out 0xe4,al; hlt
const timersAndIPIs = `bb0000e0fe c783f0000000ff010000 c783e00300000b000000
	c7832003000050000200 c7838003000060ea0000
	c7831003000000000001 c7830003000000450000 c7831003000000000001 c7830003000009460000
	fb bd14000000 b9b80b0000 f0ff042500060000 0f31 31042504060000 0fafc2 ffc9 75e8
	8b042504060000 e7e0 f4 ffcd 75d5 fa b0ff e6e4 f4`

// timerHandler: push rax; inc dword [0x608]; rdtsc; out 0xe1,eax; EOI; pop rax; iretq
const timerHandler = `50 ff042508060000 0f31 e7e1 c783b000000000000000 58 48cf`

// secondCPU, in real mode: count up with LOCK, tell, again.
const secondCPU = `31c0 8ed8 b9bc02 66f0ff060006 e2f8 66a10006 e6e2 ebed`

// traced is what a run did: a hash over every exit, with its data and the
// instruction count, and every interrupt and exception.
type traced struct {
	hash   uint64
	events int
	ticks  uint32
}

// traceRun runs the program; every disturb, if not 0, it kicks both CPUs; with
// each, it looks at every instruction.
func traceRun(t *testing.T, disturb time.Duration, each bool) traced {
	t.Helper()
	b := newBare(t, Options{Deterministic: true}, 2)
	b.code(bareCode, timersAndIPIs)
	b.code(bareAP, secondCPU)
	b.code(0xb000, timerHandler)
	b.put64(bareIDT+16*0x50, 0xb000|selCode<<16|0x8e<<40)
	b.start(0, bareCode, nil)

	var mu sync.Mutex
	var done bool
	h, n := fnv.New64a(), 0
	note := func(format string, a ...any) {
		mu.Lock()
		defer mu.Unlock()
		if !done {
			n++
			fmt.Fprintf(h, format, a...)
		}
	}
	if disturb != 0 {
		stop := time.NewTicker(disturb)
		defer stop.Stop()
		end := make(chan struct{})
		defer close(end)
		go func() {
			for {
				select {
				case <-stop.C:
					for _, v := range b.cpu {
						_ = v.Kick()
					}
				case <-end:
					return
				}
			}
		}()
	}
	var wg sync.WaitGroup
	for id, v := range b.cpu {
		if each {
			v.OnInstruction(func(uint64, []byte) {})
		}
		v.OnEvent(func(e Event) { note("%d event %d %d %#x\n", id, e.Vector, v.c.icount, e.RIP) })
		wg.Go(func() {
			for {
				x, err := v.Run()
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				stop := done
				mu.Unlock()
				if stop {
					return
				}
				if x.Reason == x86.ExitInterrupted {
					continue // comes from outside, and changes nothing
				}
				note("%d %v %#x %v % x %d\n", id, x.Reason, x.Port, x.Write, x.Data, v.c.icount)
				if x.Reason != x86.ExitIO || x.Port == 0xe4 {
					mu.Lock()
					done = true
					mu.Unlock()
					_ = v.Close()
					for _, other := range b.cpu {
						_ = other.Kick()
					}
					return
				}
			}
		})
	}
	wg.Wait()
	return traced{h.Sum64(), n, binary.LittleEndian.Uint32(b.ram[0x608:])}
}

// TestSameRunTwice: with deterministic time, two runs of two CPUs with timers,
// inter-processor interrupts and the time-stamp counter are the same, event for
// event, also if one is interrupted from outside all the time.
func TestSameRunTwice(t *testing.T) {
	first := traceRun(t, 0, false)
	if first.events < 50 || first.ticks < 10 {
		t.Fatalf("only %d events and %d timer interrupts: the program does not run", first.events, first.ticks)
	}
	for _, disturb := range []time.Duration{0, 300 * time.Microsecond} {
		if again := traceRun(t, disturb, false); again != first {
			t.Errorf("kicked every %v: %+v, the first time %+v", disturb, again, first)
		}
	}
	if again := traceRun(t, 0, true); again != first {
		t.Errorf("one instruction at a time: %+v, in blocks %+v", again, first)
	}
}

// TestRandomIsASequence: RDRAND gives the same numbers in each deterministic
// run.
func TestRandomIsASequence(t *testing.T) {
	var seen [2]uint64
	for i := range seen {
		b := newBare(t, Options{Deterministic: true}, 1)
		b.code(bareCode, "48 0f c7 f0 e6 80") // rdrand rax; out
		b.start(0, bareCode, nil)
		b.wantPort(0x80)
		seen[i] = b.get().RAX
	}
	if seen[0] != seen[1] || seen[0] == 0 {
		t.Errorf("random numbers %#x", seen)
	}
}

// TestDoorbellIsSynchronous: with deterministic time, a device that is rung has
// done its work, interrupt and all, before the next instruction.
func TestDoorbellIsSynchronous(t *testing.T) {
	b := newBare(t, Options{Deterministic: true}, 1)
	b.code(bareCode, "c7 03 05 00 00 00 90 90") // mov dword [rbx],5; nop; nop
	b.start(0, bareCode, nil)
	b.apicOn()
	const addr = 0x380000
	b.put64(barePT+8*(addr>>12), 0xd0000000|7)
	match := uint64(5)
	bell, ok, err := b.vm.Doorbell(false, 0xd0000050, 4, &match)
	if !ok || err != nil {
		t.Fatalf("no doorbell: %v", err)
	}
	waiting := make(chan struct{})
	go func() {
		close(waiting)
		for bell.Wait() == nil {
			time.Sleep(2 * time.Millisecond) // work
			b.vm.net.Message(0xfee00000, 0x55)
		}
	}()
	<-waiting
	time.Sleep(5 * time.Millisecond)
	b.regs(&x86.Regs{RIP: bareCode, RSP: bareUser, RBX: addr + 0x50, RFLAGS: 2 | x86.FlagIF})
	b.wantPort(0x55)
	if n := b.cpu[0].c.icount; n != 2 { // the store and the delivery
		t.Errorf("interrupted after %d instructions", n)
	}
}

// TestDoorbellLends: the CPU that rings does the device's work, and wakes it for
// what that leaves.
func TestDoorbellLends(t *testing.T) {
	b := newBare(t, Options{}, 1)
	b.code(bareCode, "c7 03 05 00 00 00 eb f8") // 1: mov dword [rbx],5; jmp 1b
	b.start(0, bareCode, nil)
	const addr = 0x380000
	b.put64(barePT+8*(addr>>12), 0xd0000000|7)
	bell, _, err := b.vm.Doorbell(false, 0xd0000050, 4, nil)
	if err != nil {
		t.Fatal(err)
	}
	lender, ok := bell.(virtio.Lender)
	if !ok {
		t.Fatal("the doorbell does not lend")
	}
	const turns = 3
	worked, running := 0, false
	work := func() bool {
		if !running {
			t.Error("work outside Run")
		}
		worked++
		return worked < turns
	}
	woken := make(chan struct{})
	go func() {
		for worked < turns { // the first ring may have been before the first wait
			_ = lender.WaitLending(work)
		}
		worked++ // nobody else does any more: the race detector looks
		_ = b.cpu[0].Kick()
		close(woken)
	}()
	running = true
	b.regs(&x86.Regs{RIP: bareCode, RSP: bareUser, RBX: addr + 0x50, RFLAGS: 2})
	if x := b.run(); x.Reason != x86.ExitInterrupted {
		t.Errorf("exit %v", x.Reason)
	}
	<-woken
	if worked < turns+1 {
		t.Errorf("worked %d times, want %d and the waiter", worked, turns)
	}
}

// TestDoorbellMatches: other widths and values leave Run as accesses.
func TestDoorbellMatches(t *testing.T) {
	b := newBare(t, Options{}, 1)
	// mov dword [rbx],5; mov dword [rbx],6; mov word [rbx],5; out 0x90,al
	b.code(bareCode, "c7 03 05 00 00 00 c7 03 06 00 00 00 66 c7 03 05 00 e6 90")
	b.start(0, bareCode, nil)
	const addr = 0x380000
	b.put64(barePT+8*(addr>>12), 0xd0000000|7)
	match := uint64(5)
	bell, _, err := b.vm.Doorbell(false, 0xd0000050, 4, &match)
	if err != nil {
		t.Fatal(err)
	}
	port, _, err := b.vm.Doorbell(true, 0x90, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.regs(&x86.Regs{RIP: bareCode, RSP: bareUser, RBX: addr + 0x50, RFLAGS: 2})
	for _, want := range []struct {
		size uint8
		data byte
	}{{4, 6}, {2, 5}} {
		if x := b.run(); x.Reason != x86.ExitMMIO || x.Addr != 0xd0000050 || x.Size != want.size || x.Data[0] != want.data {
			t.Errorf("exit %v size %d % x, want a store of %d bytes of %d", x.Reason, x.Size, x.Data, want.size, want.data)
		}
	}
	if err := bell.Wait(); err != nil { // it was rung before
		t.Error(err)
	}
	time.AfterFunc(20*time.Millisecond, func() { _ = b.cpu[0].Kick() })
	_ = b.run() // runs into zeros; the port's bell is rung on the way
	if err := port.Wait(); err != nil {
		t.Error(err)
	}
}

// TestDirtyLog notes the pages that are written after it was last read.
func TestDirtyLog(t *testing.T) {
	b := newBare(t, Options{}, 1)
	b.code(bareCode, "88 03 e6 80 88 03 e6 80 88 83 00 10 00 00 e6 80") // mov [rbx],al ×2; mov [rbx+0x1000],al
	b.start(0, bareCode, nil)
	b.regs(&x86.Regs{RIP: bareCode, RSP: bareUser, RBX: barePage, RFLAGS: 2})
	b.wantPort(0x80) // the page is in the TLB now
	if err := b.vm.SetDirtyLog(true); err != nil {
		t.Fatal(err)
	}
	b.wantPort(0x80)
	d := newDirty(b)
	if !d.Has(barePage) || d.Has(barePage+0x1000) {
		t.Errorf("%d pages; page %v, next %v", d.Count(), d.Has(barePage), d.Has(barePage+0x1000))
	}
	b.wantPort(0x80)
	if d := newDirty(b); d.Has(barePage) || !d.Has(barePage+0x1000) {
		t.Error("the log is not of what was written since it was read")
	}
}
