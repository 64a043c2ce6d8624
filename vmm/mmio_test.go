package vmm_test

import (
	"context"
	"encoding/binary"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/bus"
	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
)

// doubler answers a read with twice what was written last.
type doubler struct{ last uint32 }

func (d *doubler) Read(off uint64, p []byte) {
	if off == 4 && len(p) == 4 {
		binary.LittleEndian.PutUint32(p, 2*d.last)
	}
}

func (d *doubler) Write(off uint64, p []byte) {
	if off == 8 && len(p) == 4 {
		d.last = binary.LittleEndian.Uint32(p)
	}
}

func TestMMIODeviceOfOnesOwn(t *testing.T) {
	dev := &doubler{last: 21}
	code := append([]byte{
		0xbb, 0, 0, 0x10, 0xd0, // mov ebx, 0xd0100000
		0x8b, 0x43, 0x04, // mov eax, [rbx+4]
		0x89, 0x43, 0x08, // mov [rbx+8], eax
		0x8b, 0x43, 0x04, // mov eax, [rbx+4]
		0x89, 0x43, 0x08, // mov [rbx+8], eax
	}, powerOff...)
	cfg := vmm.Config{Kernel: tinyKernel(t, code), Accel: acceltest.Of(t, acceltest.Soft),
		MMIO: []vmm.MMIODevice{{Range: bus.Range{Base: 0xd0100000, Size: 16, Name: "doubler"}, Device: dev}}}
	m := newMachine(t, cfg)
	if _, err := m.Save(context.Background(), filepath.Join(t.TempDir(), "s"), vmm.SaveOptions{}); err == nil || !strings.Contains(err.Error(), "doubler") {
		t.Errorf("saved a machine with a device whose state is not known: %v", err)
	}
	if err := m.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	if dev.last != 84 {
		t.Errorf("the device has %d: want 21 doubled twice", dev.last)
	}
	cfg.Devices = devices() // their registers begin at 0xd0000000
	cfg.MMIO[0].Base = 0xd0000ff8
	if _, err := vmm.New(cfg); err == nil || !strings.Contains(err.Error(), "overlaps") {
		t.Errorf("a device over another's registers: %v", err)
	}
}
