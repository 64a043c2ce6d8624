package decode

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/net"
	"github.com/vitrine-vmm/vitrine/vmm/symbols"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
)

func meta() *trace.Meta {
	return &trace.Meta{
		Sources: []string{"vcpu0", "disk", "eth", "machine"},
		Devices: []trace.Device{
			{Name: "COM1", Type: "serial", Port: true, Base: 0x3f8, Size: 8, Source: -1},
			{Name: "disk", Type: "virtio-mmio", Base: 0xd0000000, Size: 4096, Virtio: uint32(virtio.IDBlock), Source: 1},
			{Name: "eth", Type: "virtio-pci", Virtio: uint32(virtio.IDNet), Source: 2},
			{Name: "PCI", Type: "pci-ports", Port: true, Base: 0xcf8, Size: 8, Source: -1},
			{Name: "PCI ECAM", Type: "pci-ecam", Base: 0xe0000000, Size: 1 << 20, Source: -1},
		},
		Functions: []trace.Function{{Device: 1, Name: "eth", Capabilities: []trace.Capability{{At: 0x40, ID: 9, Type: 1}, {At: 0x50, ID: 0x11}}}},
	}
}

func readRequest(sector uint64) []byte {
	b := make([]byte, 16)
	binary.LittleEndian.PutUint64(b[8:], sector)
	return b
}

// tcpFrame is a virtio header and a TCP SYN from 10.0.2.15:22 to 10.0.2.2:80.
func tcpFrame() []byte {
	b := make([]byte, net.HeaderLen, 96)
	b = append(b, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0)
	b = append(b, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2)
	return append(b, 0, 22, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0)
}

func TestLines(t *testing.T) {
	table, err := symbols.Read(strings.NewReader("ffffffff81000000 T uart_putchar\n"))
	if err != nil {
		t.Fatal(err)
	}
	d := New(meta(), table)
	const none = trace.NoCPU
	for _, c := range []struct {
		it   trace.Item
		want string
	}{
		{trace.Item{Event: trace.Event{Kind: trace.KindIO, Addr: 0x3f8, Value: 'H', Size: 1, Count: 1, Write: true, Time: 12300, Took: 1100, RIP: 0xffffffff8100001c}},
			"    0.000012 vcpu0      +12.3µs  IO out 0x3f8 ← 'H' (COM1 THR)  rip=0xffffffff8100001c uart_putchar+0x1c, 1.1µs in the VMM"},
		{trace.Item{Event: trace.Event{Kind: trace.KindIO, Addr: 0x3fd, Value: 0x60, Size: 1, Count: 1, Aux: 5}}, "IO in 0x3fd → 0x60 (COM1 LSR: THRE TEMT)"},
		{trace.Item{Event: trace.Event{Kind: trace.KindIO, Addr: 0x80, Value: 1, Count: 1, Write: true, Aux: trace.NoDevice << 32}}, "IO out 0x80 ← 0x1 (POST code, used for a delay)"},
		{trace.Item{Event: trace.Event{Kind: trace.KindIO, Addr: 0x3f8, Value: 'a', Size: 1, Count: 3, Write: true}, Data: []byte("abc")}, `IO out 0x3f8 ← "abc" (COM1 THR 3 accesses)`},
		{trace.Item{Event: trace.Event{Kind: trace.KindMMIO, Addr: 0xd0000070, Value: 3, Size: 4, Write: true, Aux: 1<<32 | 0x70}}, "MMIO write 0xd0000070 ← 0x3 (disk Status: ACKNOWLEDGE DRIVER)"},
		{trace.Item{Event: trace.Event{Kind: trace.KindMMIO, Addr: 0xc0000014, Value: 7, Size: 1, Aux: 2<<32 | 0x14}}, "MMIO read 0xc0000014 → 0x7 (eth device_status: ACKNOWLEDGE DRIVER DRIVER_OK)"},
		{trace.Item{Event: trace.Event{Kind: trace.KindIO, Addr: 0xcfc, Value: 0xffffffff, Size: 4, Count: 1, Write: true, Aux: 3<<32 | 4 | 0x810<<8}}, "(PCI CONFIG_DATA 01.0 eth BAR 0: ask for its size)"},
		{trace.Item{Event: trace.Event{Kind: trace.KindMMIO, Addr: 0xe0008052, Size: 2, Aux: 4<<32 | 0x8052}}, "(PCI ECAM 01.0 eth MSI-X capability.control)"},
		{trace.Item{Event: trace.Event{Kind: trace.KindPop, CPU: none, Source: 1, Value: 4, Aux: 16<<32 | 8193, Time: time.Millisecond}, Data: readRequest(2048),
			Segments: []trace.Segment{{Addr: 0x1000, Len: 16}, {Addr: 0x2000, Len: 8193, Write: true}}},
			"disk queue0: blk READ sector 2048 8 KiB, chain 4 [0x1000+16r 0x2000+8193w]"},
		{trace.Item{Event: trace.Event{Kind: trace.KindPush, CPU: none, Source: 1, Value: 4, Aux: 8193, Count: 0x100, Time: 3 * time.Millisecond}},
			"disk queue0: chain 4 done, OK, 8193 B written, 2.00ms after it was taken"},
		{trace.Item{Event: trace.Event{Kind: trace.KindPop, CPU: none, Source: 2, Addr: 1, Aux: 66 << 32}, Data: tcpFrame()}, "eth transmit0: net tx TCP 10.0.2.15:22 → 10.0.2.2:80 [SYN], 54 B"},
		{trace.Item{Event: trace.Event{Kind: trace.KindIRQ, CPU: none, Source: 2, Addr: ^uint64(0)}}, "eth: interrupt for a configuration change"},
		{trace.Item{Event: trace.Event{Kind: trace.KindIRQ, CPU: none, Source: 3, Addr: 4}}, "IRQ line 4 raised"},
		{trace.Item{Event: trace.Event{Kind: trace.KindWriteMSR, Addr: 0xc0000082, Value: 5}}, "WRMSR LSTAR ← 0x5"},
		{trace.Item{Event: trace.Event{Kind: trace.KindCPUID, Addr: 1}}, "CPUID 0x1 → eax=0x0 ebx=0x0 ecx=0x0 edx=0x0 (family, model, features)"},
		{trace.Item{Event: trace.Event{Kind: trace.KindVector, Addr: 14, Value: 6, Aux: trace.VectorHasCode}}, "#PF page fault, error code 0x6 (not present, store, user)"},
		{trace.Item{Event: trace.Event{Kind: trace.KindVector, Addr: 0xec, Aux: trace.VectorExternal}}, "interrupt 0xec injected"},
		{trace.Item{Event: trace.Event{Kind: trace.KindComplete, Value: 0xca010f, Size: 3}}, "completed clac (0f 01 ca)"},
		{trace.Item{Event: trace.Event{Kind: trace.KindInput, CPU: none, Value: 2, Source: 3}, Data: []byte("ls")}, `COM1 received "ls", 2 B`},
		{trace.Item{Event: trace.Event{Kind: trace.KindHalt}}, "HLT: waits for an interrupt"},
		{trace.Item{Event: trace.Event{Kind: trace.KindExit, Addr: 4}}, "EXIT shutdown"},
	} {
		l := d.Line(&c.it)
		if got := l.String(); !strings.Contains(got, c.want) {
			t.Errorf("%q\nwant %q in it", got, c.want)
		}
		if new(Explainer).Why(&l) == "" {
			t.Errorf("nothing explains %q (%s)", l.Text, l.why)
		}
	}
}

func TestFilter(t *testing.T) {
	l := Line{Kind: "io", Device: "COM1", Source: "vcpu0", CPU: 0, Addr: 0x3f8, Value: 'H', Size: 1, Write: true,
		Took: 12 * time.Microsecond, Time: time.Second, RIP: 0x1000, Symbol: "uart_putchar+0x1c", Text: "IO out"}
	for text, want := range map[string]bool{
		"io": true, "mmio": false, "COM1": true, "vcpu0": true, "not io": false, "port=0x3f8": true, "port = 0x3f0..0x3ff": true,
		"addr!=0x3f8": false, "took>10us": true, "took >= 12us and took<13us": true, "io write": true, "io read": false, "mmio or device=COM1": true,
		"(mmio or io) and cpu=0": true, "symbol~uart": true, "kind=io value=H": true, `text ~ "IO out"`: true, "rip>0x2000": false,
		"time=0s..2s": true, "! (io or mmio)": false, "uart_putchar": true, "latency>1us": false, "value=72": true,
	} {
		f, err := ParseFilter(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := f.Match(&l); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}

func TestFilterSaysWhereItIsWrong(t *testing.T) {
	for text, at := range map[string]int{"": 0, "io and": 6, "port=": 5, "port=xyz": 5, "prt=1": 0, "took>10": 5, "(io": 3, "io )": 3, "kind=nonsense": 5,
		"device<x": 7, "port~3": 5, "not": 3, `text="open`: 5, "port>1..2": 5, "= 3": 0, "io or or net0": 6, "and io": 0, "rip=5..2": 4, "time=2s..1s": 5} {
		_, err := ParseFilter(text)
		var e *FilterError
		if !errors.As(err, &e) {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if e.At != at {
			t.Errorf("%q: at %d, want %d: %v", text, e.At, at, err)
		}
	}
	_, err := ParseFilter("io and prt=3")
	if want := "  io and prt=3\n         ^"; !strings.Contains(err.Error(), want) {
		t.Errorf("%v", err)
	}
}

func FuzzFilter(f *testing.F) {
	f.Add("io and (port=0x3f8 or not took>1ms)")
	f.Add(`text ~ "a`)
	f.Fuzz(func(t *testing.T, text string) {
		filter, err := ParseFilter(text)
		var e *FilterError
		switch {
		case err == nil:
			filter.Match(&Line{})
		case !errors.As(err, &e):
			t.Fatalf("not a FilterError: %v", err)
		default:
			_ = err.Error()
		}
	})
}

// Whatever a recording's events hold, they are put into words.
func FuzzLine(f *testing.F) {
	f.Add(uint8(1), uint64(0x3f8), uint64('H'), uint64(0), uint16(0), uint16(1), []byte("x"))
	f.Add(uint8(9), uint64(1), uint64(0), uint64(66)<<32, uint16(2), uint16(0), tcpFrame())
	f.Fuzz(func(t *testing.T, kind uint8, addr, value, aux uint64, source, count uint16, data []byte) {
		d := New(meta(), nil)
		it := trace.Item{Event: trace.Event{Kind: trace.Kind(kind), Addr: addr, Value: value, Aux: aux, Source: source, Count: count, Size: uint8(value)}, Data: data}
		for range 2 {
			l := d.Line(&it)
			if l.Text == "" {
				t.Fatal("no text")
			}
			_ = l.String()
		}
	})
}
