package vmm_test

import (
	"context"
	"reflect"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// movesMuch is a guest that spends its time in repeated instructions, whole
// pages at once and element by element, and tells of each round.
var movesMuch = append([]byte{
	0xbb, 10, 0, 0, 0, //     mov ebx, 10
	0xbf, 0, 0, 0x20, 0, //   l: mov edi, 0x200000
	0xb9, 0, 0, 0x08, 0, //   mov ecx, 0x80000
	0xf3, 0xaa, //            rep stosb
	0xbe, 0, 0, 0x20, 0, //   mov esi, 0x200000
	0xbf, 0x10, 0, 0x20, 0, // mov edi, 0x200010: what is copied is copied again
	0xb9, 0, 0x40, 0, 0, //   mov ecx, 0x4000
	0xf3, 0xa4, //            rep movsb
	0xbe, 0, 0, 0x20, 0, //   mov esi, 0x200000
	0xbf, 0, 0, 0x40, 0, //   mov edi, 0x400000
	0xb9, 0, 0, 0x01, 0, //   mov ecx, 0x10000
	0xf3, 0x48, 0xa5, //      rep movsq
	0xe6, 0x80, //            out 0x80, al
	0xff, 0xcb, //            dec ebx
	0x75, 0xcb, //            jnz l
}, powerOff...)

// recordedOf runs a deterministic machine, with meanwhile beside it, and returns
// its events.
func recordedOf(t *testing.T, w *vmm.InstructionTrace, code []byte, meanwhile func(*vmm.Machine, context.Context)) []trace.Event {
	t.Helper()
	m := newMachine(t, vmm.Config{Kernel: tinyKernel(t, code), Accel: acceltest.Only(t, acceltest.Soft, deterministic), Deterministic: true})
	tr, err := m.StartTrace(vmm.TraceOptions{Events: 1 << 16, Instructions: w})
	if err != nil {
		t.Fatal(err)
	}
	k, over, followed := new(keeper), make(chan struct{}), make(chan error, 1)
	go func() { followed <- tr.Follow(context.Background(), over, k) }()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { meanwhile(m, ctx); close(done) }()
	err = runFor(t, m, time.Minute)
	cancel()
	<-done
	close(over)
	if e := <-followed; err != nil || e != nil || k.end.Lost != 0 {
		t.Fatal(err, e, k.end.Lost)
	}
	return k.events
}

// A deterministic run is the same whoever pauses it or looks inside, and
// however often: also in the midst of repeated instructions.
func TestPausesLeaveNoTrace(t *testing.T) {
	none := func(*vmm.Machine, context.Context) {}
	straight := recordedOf(t, nil, movesMuch, none)
	pauses := 0
	paused := recordedOf(t, nil, movesMuch, func(m *vmm.Machine, ctx context.Context) {
		for ctx.Err() == nil {
			if m.Pause(ctx) == nil {
				pauses++
				_ = m.Resume()
			}
			_, _ = m.Inspect(ctx, "cpu", vmm.InspectQuery{})
		}
	})
	if pauses == 0 || len(straight) != 11 {
		t.Fatalf("%d pauses, %d events", pauses, len(straight))
	}
	if !reflect.DeepEqual(straight, paused) {
		for i := range straight {
			if i >= len(paused) || straight[i] != paused[i] {
				t.Fatalf("with %d pauses event %d of %d is another:\n%+v\nwithout\n%+v", pauses, i, len(straight), paused[i], straight[i])
			}
		}
	}
	t.Logf("%d pauses", pauses)
}

// So is one whose instructions are watched.
func TestWatchingLeavesNoTrace(t *testing.T) {
	none := func(*vmm.Machine, context.Context) {}
	straight := recordedOf(t, nil, movesMuch, none)
	nothing := &vmm.InstructionTrace{Want: func(int, uint64, x86.Mode, uint8) bool { return false }}
	watched := recordedOf(t, nothing, movesMuch, none)
	if !reflect.DeepEqual(straight, watched) {
		t.Errorf("watched it is\n%+v\nand else\n%+v", watched, straight)
	}
}
