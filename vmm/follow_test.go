package vmm_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/rng"
	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/record"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
	"github.com/vitrine-vmm/vitrine/vmm/trace/decode"
)

// program assembles a guest that touches devices.
type program struct{ code []byte }

func (p *program) out(port uint16, v byte) *program {
	p.code = append(p.code, 0xba, byte(port), byte(port>>8), 0, 0, 0xb0, v, 0xee) // mov edx, port; mov al, v; out dx, al
	return p
}

func (p *program) in(port uint16) *program {
	p.code = append(p.code, 0xba, byte(port), byte(port>>8), 0, 0, 0xec) // mov edx, port; in al, dx
	return p
}

func (p *program) store(addr, v uint32) *program {
	p.code = binary.LittleEndian.AppendUint32(append(p.code, 0xb8), addr) // mov eax, addr
	p.code = binary.LittleEndian.AppendUint32(append(p.code, 0xc7, 0x00), v)
	return p
}

func (p *program) load(addr uint32) *program {
	p.code = binary.LittleEndian.AppendUint32(append(p.code, 0xb8), addr)
	p.code = append(p.code, 0x8b, 0x18) // mov ebx, [rax]
	return p
}

// Where the test's guest lays out a queue of the entropy device, and a buffer.
const (
	testDesc, testAvail, testUsed, testBuffer = 0x200000, 0x201000, 0x202000, 0x203000
	testMMIO                                  = 0xd0000000
)

// entropy is a driver of virtio-mmio's entropy device: it asks for 64 bytes
// and waits for them.
func (p *program) entropy() *program {
	reg := func(off, v uint32) { p.store(testMMIO+off, v) }
	p.load(testMMIO).load(testMMIO + 8)
	reg(0x70, 0)
	reg(0x70, 3) // ACKNOWLEDGE, DRIVER
	reg(0x14, 1)
	p.load(testMMIO + 0x10)
	reg(0x24, 1)
	reg(0x20, 1) // VERSION_1
	reg(0x70, 11)
	reg(0x30, 0)
	p.load(testMMIO + 0x34)
	reg(0x38, 8)
	reg(0x80, testDesc)
	reg(0x90, testAvail)
	reg(0xa0, testUsed)
	reg(0x44, 1)
	reg(0x70, 15) // DRIVER_OK
	p.store(testDesc, testBuffer).store(testDesc+4, 0).store(testDesc+8, 64).store(testDesc+12, 2)
	p.store(testAvail+4, 0).store(testAvail, 1<<16)
	reg(0x50, 0)
	// mov eax, used; pause; cmp word [rax+2], 1; jne
	p.code = binary.LittleEndian.AppendUint32(append(p.code, 0xb8), testUsed)
	p.code = append(p.code, 0xf3, 0x90, 0x66, 0x83, 0x78, 0x02, 0x01, 0x75, 0xf7)
	p.load(testMMIO + 0x60)
	reg(0x64, 1)
	return p
}

// tracedGuest touches the chips, drives a device and turns itself off.
func tracedGuest() []byte {
	p := new(program)
	p.out(0x3fb, 0x83).out(0x3f8, 1).out(0x3fb, 0x03).out(0x3fc, 0x0b).in(0x3fd).out(0x3f8, 'H').out(0x3f8, 'i')
	p.out(0x70, 0x0b).in(0x71).out(0x80, 1).in(0x64)
	p.entropy()
	p.out(0x510, 1).out(0x510, 0x11)
	return append(p.code, 0xeb, 0xfe)
}

// keeper collects a trace.
type keeper struct {
	events []trace.Event
	end    *trace.End
}

func (k *keeper) Events(e []trace.Event) error { k.events = append(k.events, e...); return nil }
func (k *keeper) End(e *trace.End) error       { k.end = e; return nil }

// traced runs the guest with a trace into sink.
func traced(t *testing.T, accel string, o vmm.TraceOptions, open func(*vmm.Tracing) vmm.TraceSink) *vmm.Machine {
	t.Helper()
	m := newMachine(t, vmm.Config{Kernel: tinyKernel(t, tracedGuest()), Accel: accel, Devices: []virtio.Device{rng.New("rng", zeros{})}})
	runTraced(t, m, o, open)
	return m
}

// runTraced runs a machine to its end with a trace into a sink.
func runTraced(t *testing.T, m *vmm.Machine, o vmm.TraceOptions, open func(*vmm.Tracing) vmm.TraceSink) {
	t.Helper()
	tr, err := m.StartTrace(o)
	if err != nil {
		t.Fatal(err)
	}
	sink := open(tr)
	done, followed := make(chan struct{}), make(chan error, 1)
	go func() { followed <- tr.Follow(context.Background(), done, sink) }()
	err = runFor(t, m, time.Minute)
	close(done)
	if e := <-followed; err != nil || e != nil {
		t.Fatal(err, e)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// golden is the trace of the vCPU, without times; completions differ by host.
const golden = `IO out 0x3fb ← 0x83 (COM1 LCR: 8N1 DLAB)
IO out 0x3f8 ← 0x1 (COM1 DLL)
IO out 0x3fb ← 0x3 (COM1 LCR: 8N1)
IO out 0x3fc ← 0xb (COM1 MCR: DTR RTS OUT2)
IO in 0x3fd → 0x60 (COM1 LSR: THRE TEMT)
IO out 0x3f8 ← 'H' (COM1 THR)
IO out 0x3f8 ← 'i' (COM1 THR)
IO out 0x70 ← 0xb (RTC index: register B)
IO in 0x71 → 0x2 (RTC data: register B)
IO out 0x80 ← 0x1 (POST code, used for a delay)
IO in 0x64 → 0x14 (i8042 status: self-test passed, unlocked)
MMIO read 0xd0000000 → 0x74726976 (rng MagicValue)
MMIO read 0xd0000008 → 0x4 (rng DeviceID: entropy)
MMIO write 0xd0000070 ← 0x0 (rng Status: reset)
MMIO write 0xd0000070 ← 0x3 (rng Status: ACKNOWLEDGE DRIVER)
MMIO write 0xd0000014 ← 0x1 (rng DeviceFeaturesSel)
MMIO read 0xd0000010 → 0x1 (rng DeviceFeatures: VERSION_1)
MMIO write 0xd0000024 ← 0x1 (rng DriverFeaturesSel)
MMIO write 0xd0000020 ← 0x1 (rng DriverFeatures: VERSION_1)
MMIO write 0xd0000070 ← 0xb (rng Status: ACKNOWLEDGE DRIVER FEATURES_OK)
MMIO write 0xd0000030 ← 0x0 (rng QueueSel)
MMIO read 0xd0000034 → 0x40 (rng QueueNumMax: queue 0)
MMIO write 0xd0000038 ← 0x8 (rng QueueNum: queue 0)
MMIO write 0xd0000080 ← 0x200000 (rng QueueDescLow: queue 0)
MMIO write 0xd0000090 ← 0x201000 (rng QueueDriverLow: queue 0)
MMIO write 0xd00000a0 ← 0x202000 (rng QueueDeviceLow: queue 0)
MMIO write 0xd0000044 ← 0x1 (rng QueueReady: queue 0)
MMIO write 0xd0000070 ← 0xf (rng Status: ACKNOWLEDGE DRIVER FEATURES_OK DRIVER_OK)
MMIO read 0xd0000060 → 0x1 (rng InterruptStatus: used buffer)
MMIO write 0xd0000064 ← 0x1 (rng InterruptACK: used buffer)
IO out 0x510 ← 0x1 (debug port mark: user space reached)
IO out 0x510 ← 0x11 (debug port mark: power off)
`

func TestGoldenTrace(t *testing.T) {
	accelerators(t, func(t *testing.T, accel string) {
		k := new(keeper)
		var meta *trace.Meta
		traced(t, accel, vmm.TraceOptions{Events: 4096}, func(tr *vmm.Tracing) vmm.TraceSink { meta = &tr.Meta; return k })
		d, pieces := decode.New(meta, nil), trace.NewAssembler()
		var cpu, queue strings.Builder
		for _, e := range k.events {
			it, ok := pieces.Add(e)
			if !ok {
				continue
			}
			switch l := d.Line(&it); {
			case l.Source == "vcpu0" && (l.Kind == "io" || l.Kind == "mmio"):
				if l.What == "QueueNotify" { // an exit only where there are no ioeventfds
					continue
				}
				if l.RIP < 1<<20 || l.Took == 0 && accel == "kvm" {
					t.Errorf("%q: rip %#x, took %v", l.Text, l.RIP, l.Took)
				}
				fmt.Fprintln(&cpu, l.Text)
			case l.Source == "rng" && l.Kind != "doorbell":
				text, _, _ := strings.Cut(l.Text, ", 0 B")
				text, _, _ = strings.Cut(text, " written")
				fmt.Fprintln(&queue, text)
			}
		}
		if cpu.String() != golden {
			t.Errorf("the CPU's trace:\n%s\nwant\n%s", cpu.String(), golden)
		}
		if want := "rng requests: rng wants 64 B, chain 0 [0x203000+64w]\nrng requests: chain 0 done, 64 B\nrng requests: interrupt\n"; queue.String() != want {
			t.Errorf("the device's trace:\n%s\nwant\n%s", queue.String(), want)
		}
		if k.end == nil || k.end.Lost != 0 || !slices.ContainsFunc(k.end.Phases, func(p trace.Phase) bool { return p.Name == "user space" }) {
			t.Errorf("the end: %+v", k.end)
		}
	})
}

// A recording, played again, leaves every device in the state in which the
// machine left it, and answers every read as it was answered; and so it does
// after steps back.
func TestRecordAndReplay(t *testing.T) {
	accelerators(t, func(t *testing.T, accel string) {
		var b bytes.Buffer
		traced(t, accel, vmm.TraceOptions{Events: 4096, Record: true}, func(tr *vmm.Tracing) vmm.TraceSink {
			w, err := trace.NewWriter(&b, &tr.Meta)
			if err != nil {
				t.Fatal(err)
			}
			return w
		})
		p, err := record.Open(&b)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		atStart, err := p.State("rng")
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := p.Go(len(p.Items)); err != nil {
				t.Fatal(err)
			}
			if differ, err := p.Check(); err != nil || len(differ) != 0 || len(p.Differences()) != 0 {
				for _, name := range differ {
					s, _ := p.State(name)
					t.Errorf("%s is\n%s, and was\n%s", name, s, p.End.States[name])
				}
				t.Fatalf("%v, %v, reads %+v", differ, err, p.Differences())
			}
			if err := p.Go(0); err != nil {
				t.Fatal(err)
			}
			if s, err := p.State("rng"); err != nil || !bytes.Equal(s, atStart) {
				t.Fatalf("back at the start: %s, %v", s, err)
			}
		}
	})
}
