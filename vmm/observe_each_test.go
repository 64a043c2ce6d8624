package vmm_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
	"github.com/vitrine-vmm/vitrine/vmm/trace/decode"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// instructions is why some tests are the software CPU's alone.
const instructions = "KVM shows no single instructions"

// executed runs a tiny guest and returns the trace of its CPU, a line an event
// without times, and how it ended.
func executed(t *testing.T, cfg vmm.Config, w *vmm.InstructionTrace, code ...byte) (string, error) {
	t.Helper()
	cfg.Kernel, cfg.Accel = tinyKernel(t, code), acceltest.Only(t, acceltest.Soft, instructions)
	m := newMachine(t, cfg)
	tr, err := m.StartTrace(vmm.TraceOptions{Events: 1 << 12, Instructions: w})
	if err != nil {
		t.Fatal(err)
	}
	k, over, followed := new(keeper), make(chan struct{}), make(chan error, 1)
	go func() { followed <- tr.Follow(context.Background(), over, k) }()
	end := runFor(t, m, time.Minute)
	close(over)
	if err := <-followed; err != nil {
		t.Fatal(err)
	}
	if k.end.Lost != 0 {
		t.Errorf("%d events lost", k.end.Lost)
	}
	var b strings.Builder
	d, pieces := decode.New(&tr.Meta, nil), trace.NewAssembler()
	for _, e := range k.events {
		if it, ok := pieces.Add(e); ok && e.CPU == 0 {
			l := d.Line(&it)
			fmt.Fprintln(&b, l.Text)
		}
	}
	return b.String(), end
}

// counting counts to two in RBX, loads FS and turns the machine off.
var counting = append([]byte{
	0x31, 0xdb, //             +0  xor ebx, ebx
	0x48, 0xff, 0xc3, //       +2  inc rbx
	0x48, 0x83, 0xfb, 0x02, // +5  cmp rbx, 2
	0x75, 0xf7, //             +9  jne +2
	0x8e, 0xe3, //             +11 mov fs, bx: null
}, powerOff...)

const goldenInstructions = `0x100078 long/0  31 db                 xor ebx, ebx                  flags []→[PF ZF]
0x10007a long/0  48 ff c3              inc rbx                       rbx 0x0→0x1, flags [PF ZF]→[]
0x10007d long/0  48 83 fb 02           cmp rbx, 0x2                  flags []→[CF PF AF SF]
0x100081 long/0  75 f7                 jnz 0x10007a                  → 0x10007a
0x10007a long/0  48 ff c3              inc rbx                       rbx 0x1→0x2, flags [CF PF AF SF]→[CF]
0x10007d long/0  48 83 fb 02           cmp rbx, 0x2                  flags [CF]→[PF ZF]
0x100081 long/0  75 f7                 jnz 0x10007a
0x100083 long/0  8e e3                 mov fs, bx                    fs 0x18→0x2
0x100085 long/0  ba 10 05 00 00        mov edx, 0x510                rdx 0x0→0x510
0x10008a long/0  b0 11                 mov al, 0x11                  rax 0x0→0x11
IO out 0x510 ← 0x11 (debug port mark: power off)
0x10008c long/0  ee                    out dx, al
`

func TestGoldenInstructions(t *testing.T) {
	for range 2 {
		got, err := executed(t, vmm.Config{Deterministic: true}, new(vmm.InstructionTrace), counting...)
		if err != nil || got != goldenInstructions {
			t.Fatalf("%v\n%s\nwant\n%s", err, got, goldenInstructions)
		}
	}
}

// TestInstructionsWanted: what nobody wants is not told of, and a ring that is
// far too small loses nothing.
func TestInstructionsWanted(t *testing.T) {
	loop := append([]byte{
		0xb9, 0x00, 0x40, 0, 0, // mov ecx, 16384
		0xff, 0xc9, //             dec ecx
		0x75, 0xfc, //             jnz
	}, powerOff...)
	w := &vmm.InstructionTrace{Want: func(cpu int, rip uint64, m x86.Mode, cpl uint8) bool {
		return cpu == 0 && rip == 0x10007d && m == x86.ModeLong && cpl == 0
	}}
	got, err := executed(t, vmm.Config{}, w, loop...)
	if n := strings.Count(got, "dec ecx"); err != nil || n != 16384 || strings.Contains(got, "jnz") {
		t.Errorf("%v; %d of dec, want 16384 and nothing else of:\n%.500s", err, n, got)
	}
}

func TestInstructionsWithAllRegisters(t *testing.T) {
	m := newMachine(t, vmm.Config{Kernel: tinyKernel(t, counting), Accel: acceltest.Only(t, acceltest.Soft, instructions)})
	tr, err := m.StartTrace(vmm.TraceOptions{Events: 4096, Instructions: &vmm.InstructionTrace{All: true}})
	if err != nil {
		t.Fatal(err)
	}
	k, over, followed := new(keeper), make(chan struct{}), make(chan error, 1)
	go func() { followed <- tr.Follow(context.Background(), over, k) }()
	if err := runFor(t, m, time.Minute); err != nil {
		t.Fatal(err)
	}
	close(over)
	if err := <-followed; err != nil {
		t.Fatal(err)
	}
	pieces, last, n := trace.NewAssembler(), [x86.RegCount]uint64{}, 0
	for _, e := range k.events {
		it, ok := pieces.Add(e)
		if !ok || e.Kind != trace.KindInstruction {
			continue
		}
		var in trace.Instruction
		it.Instruction(&in)
		if len(in.Registers) != x86.RegCount {
			t.Fatalf("%#x has %d registers, want %d", in.RIP, len(in.Registers), x86.RegCount)
		}
		for i, c := range in.Registers {
			if n > 0 && c.Before != last[i] {
				t.Errorf("%#x begins with %s = %#x, and the one before it ended with %#x", in.RIP, x86.RegName(i), c.Before, last[i])
			}
			last[i] = c.After
		}
		n++
	}
	if n != 11 {
		t.Errorf("%d instructions, want 11", n)
	}
}

// TestUnknownInstructionsAreNamed: what the software CPU does not have is #UD,
// and the trace says what it was, also without single instructions.
func TestUnknownInstructionsAreNamed(t *testing.T) {
	vzeroupper := []byte{0xc5, 0xf8, 0x77}
	for _, w := range []*vmm.InstructionTrace{nil, new(vmm.InstructionTrace)} {
		got, err := executed(t, vmm.Config{}, w, vzeroupper...)
		if err == nil || !strings.Contains(err.Error(), "triple fault") {
			t.Errorf("ended with %v", err)
		}
		if !strings.Contains(got, "the software CPU does not have") || !strings.Contains(got, "vzeroupper (c5 f8 77") || !strings.Contains(got, "#UD invalid opcode") {
			t.Errorf("the trace does not name it:\n%s", got)
		}
		if w != nil && !strings.Contains(got, "raises #UD invalid opcode") {
			t.Errorf("the instruction does not show as faulted:\n%s", got)
		}
	}
}

func TestInstructionsNeedTheSoftwareCPU(t *testing.T) {
	accelerators(t, func(t *testing.T, accel string) {
		m := newMachine(t, vmm.Config{Kernel: tinyKernel(t, powerOff), Accel: accel})
		tr, err := m.StartTrace(vmm.TraceOptions{Events: 16, Instructions: new(vmm.InstructionTrace)})
		switch {
		case accel == "soft" && err == nil:
			tr.Cancel()
		case accel == "soft":
			t.Error(err)
		case err == nil || !strings.Contains(err.Error(), "--accel soft"):
			t.Errorf("under KVM: %v, want an error that says what to do", err)
		}
	})
}

// stuck is a sink that takes nothing until it is closed.
type stuck chan struct{}

func (s stuck) Events([]trace.Event) error { <-s; return nil }
func (s stuck) End(*trace.End) error       { return nil }

// TestReaderThatIsStuck: a CPU that waits for the reader of its instructions
// can be paused, goes on, and can be stopped.
func TestReaderThatIsStuck(t *testing.T) {
	m := newMachine(t, vmm.Config{Kernel: tinyKernel(t, []byte{0xeb, 0xfe}), Accel: "soft"})
	tr, err := m.StartTrace(vmm.TraceOptions{Events: 256, Instructions: new(vmm.InstructionTrace)})
	if err != nil {
		t.Fatal(err)
	}
	s, over, followed := make(stuck), make(chan struct{}), make(chan error, 1)
	go func() { followed <- tr.Follow(context.Background(), over, s) }()
	ended := make(chan error, 1)
	go func() { ended <- m.Run(context.Background()) }()
	executed := func() uint64 { n, _ := m.Instructions(); return n }
	for last := uint64(0); last == 0 || executed() != last; time.Sleep(20 * time.Millisecond) {
		last = executed() // until it waits
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := m.Pause(ctx); err != nil {
		t.Errorf("pause: %v", err)
	}
	if err := m.Resume(); err != nil {
		t.Errorf("resume: %v", err)
	}
	m.Stop(context.Canceled)
	select {
	case <-ended:
	case <-ctx.Done():
		t.Error("it does not stop")
	}
	close(s)
	close(over)
	if err := <-followed; err != nil {
		t.Error(err)
	}
}
