package virtio

import (
	"strings"
	"testing"
)

// Every register of either transport that the device implements has a name.
func TestEveryRegisterDecodes(t *testing.T) {
	for _, off := range []uint64{regMagic, regVersion, regDeviceID, regVendorID, regDeviceFeatures, regDeviceFeaturesSel, regDriverFeatures,
		regDriverFeaturesSel, regQueueSel, regQueueNumMax, regQueueNum, regQueueReady, regQueueNotify, regInterruptStatus, regInterruptACK,
		regStatus, regQueueDescLow, regQueueDescHigh, regQueueDriverLow, regQueueDriverHigh, regQueueDeviceLow, regQueueDeviceHigh,
		regSHMLenLow, regSHMBaseHigh, regConfigGeneration, regConfig} {
		d := Decoder{ID: IDBlock}
		if name, _ := d.Access(off, 4, true, 1); name == "" {
			t.Errorf("mmio %#x has no name", off)
		}
	}
	for _, off := range []uint64{comDeviceFeatureSelect, comDeviceFeature, comDriverFeatureSelect, comDriverFeature, comConfigVector, comNumQueues,
		comStatus, comGeneration, comQueueSelect, comQueueSize, comQueueVector, comQueueEnable, comQueueNotifyOff, comQueueDesc, comQueueDesc + 4,
		comQueueDriver, comQueueDriver + 4, comQueueDevice, comQueueDevice + 4, pciISR, pciDevice, pciNotify, pciMSIXTable, pciMSIXPBA} {
		d := Decoder{ID: IDNet, PCI: true}
		if name, _ := d.Access(off, 4, true, 1); name == "" {
			t.Errorf("pci %#x has no name", off)
		}
	}
}

func TestRegisterMeanings(t *testing.T) {
	d := Decoder{ID: IDBlock}
	d.Access(regQueueSel, 4, true, 3)
	d.Access(regDeviceFeaturesSel, 4, true, 1)
	for _, c := range []struct {
		off, v uint64
		want   string
	}{{regQueueNum, 64, "queue 3"}, {regDeviceFeatures, 1, "VERSION_1"}, {regDriverFeatures, 1 << 9, "FLUSH"}, {regStatus, 15, "DRIVER_OK"},
		{regStatus, 0, "reset"}, {regInterruptStatus, 1, "used buffer"}, {regDeviceID, 2, "block"}, {regQueueNotify, 7, "queue 7"}} {
		if _, got := d.Access(c.off, 4, c.off != regDeviceFeatures, c.v); !strings.Contains(got, c.want) {
			t.Errorf("%#x: %q, want %q in it", c.off, got, c.want)
		}
	}
	if name, _ := d.Access(regConfig+1, 1, false, 0); name != "config.capacity+1" {
		t.Errorf("config: %q", name)
	}
	p := Decoder{ID: IDNet, PCI: true}
	if name, m := p.Access(pciMSIXTable+16+12, 4, true, 1); name != "MSI-X vector 1 control" || m != "masked" {
		t.Errorf("msix: %q %q", name, m)
	}
	if _, m := p.Access(comConfigVector, 2, true, noVector); m != "none" {
		t.Errorf("vector: %q", m)
	}
}

func TestQueueNames(t *testing.T) {
	for _, c := range []struct {
		id   DeviceID
		i, n int
		want string
	}{{IDNet, 0, 3, "receive0"}, {IDNet, 3, 5, "transmit1"}, {IDNet, 4, 5, "control"}, {IDVsock, 1, 3, "tx"}, {IDBlock, 0, 1, "queue0"}} {
		if got := QueueName(c.id, c.i, c.n); got != c.want {
			t.Errorf("%v %d of %d: %q, want %q", c.id, c.i, c.n, got, c.want)
		}
	}
}

func FuzzDecoder(f *testing.F) {
	f.Add(uint64(0x70), uint64(15), uint32(2), true, false)
	f.Fuzz(func(t *testing.T, off, v uint64, id uint32, write, pci bool) {
		d := Decoder{ID: DeviceID(id), PCI: pci}
		for range 2 {
			d.Access(off, 4, write, v)
		}
	})
}
