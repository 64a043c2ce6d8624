package vmm_test

import (
	"strings"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
	"github.com/vitrine-vmm/vitrine/vmm/trace/decode"
)

// TestEveryPortHasAName: each port of each chip of a machine, read or written,
// is named by its chip in a trace.
func TestEveryPortHasAName(t *testing.T) {
	m := newMachine(t, vmm.Config{Kernel: tinyKernel(t, powerOff), Accel: acceltest.Of(t, acceltest.Soft), ACPI: true, Transport: vmm.TransportPCI})
	tr, err := m.StartTrace(vmm.TraceOptions{Events: 64})
	if err != nil {
		t.Fatal(err)
	}
	defer runFor(t, m, time.Minute)
	meta := tr.Meta
	d := decode.New(&meta, nil)
	// Ports in a chip's range that are no registers of its.
	reserved := map[string]uint64{"i8042": 1<<1 | 1<<2 | 1<<3, "ACPI": 1 << 3}
	n := 0
	for i, dev := range meta.Devices {
		if !dev.Port {
			continue
		}
		for off := range dev.Size {
			if reserved[dev.Name]>>off&1 != 0 {
				continue
			}
			for _, write := range []bool{false, true} {
				it := trace.Item{Event: trace.Event{Kind: trace.KindIO, Addr: dev.Base + off, Size: 1, Count: 1, Write: write, Aux: uint64(i)<<32 | off}}
				l := d.Line(&it)
				if n++; l.What == "" || !strings.Contains(l.Text, dev.Name+" "+l.What) {
					t.Errorf("%s port %#x (write %v): %q", dev.Name, dev.Base+off, write, l.Text)
				}
			}
		}
	}
	if n < 40 {
		t.Errorf("only %d ports", n)
	}
}
