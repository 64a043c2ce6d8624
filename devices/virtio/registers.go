package virtio

import (
	"fmt"
	"strings"
)

var mmioNames = map[uint64]string{
	regMagic: "MagicValue", regVersion: "Version", regDeviceID: "DeviceID", regVendorID: "VendorID",
	regDeviceFeatures: "DeviceFeatures", regDeviceFeaturesSel: "DeviceFeaturesSel", regDriverFeatures: "DriverFeatures",
	regDriverFeaturesSel: "DriverFeaturesSel", regQueueSel: "QueueSel", regQueueNumMax: "QueueNumMax", regQueueNum: "QueueNum",
	regQueueReady: "QueueReady", regQueueNotify: "QueueNotify", regInterruptStatus: "InterruptStatus", regInterruptACK: "InterruptACK",
	regStatus: "Status", regQueueDescLow: "QueueDescLow", regQueueDescHigh: "QueueDescHigh", regQueueDriverLow: "QueueDriverLow",
	regQueueDriverHigh: "QueueDriverHigh", regQueueDeviceLow: "QueueDeviceLow", regQueueDeviceHigh: "QueueDeviceHigh",
	0x0ac: "SHMSel", regSHMLenLow: "SHMLenLow", 0x0b4: "SHMLenHigh", 0x0b8: "SHMBaseLow", regSHMBaseHigh: "SHMBaseHigh",
	0x0c0: "QueueReset", regConfigGeneration: "ConfigGeneration",
}

// Decoder names accesses to a device's registers behind either transport, for
// traces (virtio 1.2 §4.1.4, §4.2.2). It remembers the selectors, which say
// what other registers are about.
type Decoder struct {
	ID  DeviceID
	PCI bool

	queue, deviceSel, driverSel uint64
}

// Access names the register at off of the window or BAR, and says what the
// value means ("" where there is nothing to say).
func (d *Decoder) Access(off uint64, size uint8, write bool, v uint64) (register, meaning string) {
	if d.PCI {
		return d.pci(off, size, write, v)
	}
	if off >= regConfig {
		return d.config(off - regConfig)
	}
	name := mmioNames[off]
	switch off {
	case regDeviceID:
		meaning = DeviceID(v).String()
	case regDeviceFeaturesSel:
		d.note(&d.deviceSel, write, v)
	case regDriverFeaturesSel:
		d.note(&d.driverSel, write, v)
	case regQueueSel:
		d.note(&d.queue, write, v)
	case regDeviceFeatures:
		meaning = d.features(v, d.deviceSel)
	case regDriverFeatures:
		meaning = d.features(v, d.driverSel)
	case regQueueNotify:
		meaning = fmt.Sprintf("queue %d", v)
	case regInterruptStatus, regInterruptACK:
		meaning = interruptText(v)
	case regStatus:
		meaning = statusText(v)
	default:
		if off >= regQueueNumMax && off <= regQueueReady || off >= regQueueDescLow && off <= regQueueDeviceHigh {
			meaning = fmt.Sprintf("queue %d", d.queue)
		}
	}
	return name, meaning
}

func (d *Decoder) note(at *uint64, write bool, v uint64) {
	if write {
		*at = v
	}
}

func (d *Decoder) features(v, sel uint64) string {
	switch sel {
	case 0:
		return strings.Join(FeatureNames(d.ID, v&0xffffffff), " ")
	case 1:
		return strings.Join(FeatureNames(d.ID, v<<32), " ")
	}
	return ""
}

func statusText(v uint64) string {
	if v == 0 {
		return "reset"
	}
	return strings.Join(StatusNames(uint8(v)), " ")
}

func interruptText(v uint64) string {
	return strings.Join(bitNames(v, []bitName{{0, "used buffer"}, {1, "configuration change"}}), ", ")
}

var commonNames = map[uint64]string{
	comDeviceFeatureSelect: "device_feature_select", comDeviceFeature: "device_feature", comDriverFeatureSelect: "driver_feature_select",
	comDriverFeature: "driver_feature", comConfigVector: "config_msix_vector", comNumQueues: "num_queues", comStatus: "device_status",
	comGeneration: "config_generation", comQueueSelect: "queue_select", comQueueSize: "queue_size", comQueueVector: "queue_msix_vector",
	comQueueEnable: "queue_enable", comQueueNotifyOff: "queue_notify_off", comQueueDesc: "queue_desc", comQueueDesc + 4: "queue_desc high",
	comQueueDriver: "queue_driver", comQueueDriver + 4: "queue_driver high", comQueueDevice: "queue_device", comQueueDevice + 4: "queue_device high",
}

func (d *Decoder) pci(off uint64, _ uint8, write bool, v uint64) (register, meaning string) {
	page := off % pciPage
	switch {
	case off >= pciMSIXPBA:
		return fmt.Sprintf("MSI-X pending bits %d", (off-pciMSIXPBA)*8), ""
	case off >= pciMSIXTable:
		field := [...]string{"address", "address high", "data", "control"}[off>>2&3]
		if off>>2&3 == 3 && v&1 != 0 {
			meaning = "masked"
		}
		return fmt.Sprintf("MSI-X vector %d %s", (off-pciMSIXTable)/16, field), meaning
	case off >= pciNotify:
		return "notify", fmt.Sprintf("queue %d", page/notifyMultiplier)
	case off >= pciDevice:
		return d.config(page)
	case off >= pciISR:
		return "ISR", interruptText(v)
	}
	return d.common(page, write, v)
}

func (d *Decoder) common(off uint64, write bool, v uint64) (register, meaning string) {
	switch off {
	case comDeviceFeatureSelect:
		d.note(&d.deviceSel, write, v)
	case comDriverFeatureSelect:
		d.note(&d.driverSel, write, v)
	case comQueueSelect:
		d.note(&d.queue, write, v)
	case comDeviceFeature:
		meaning = d.features(v, d.deviceSel)
	case comDriverFeature:
		meaning = d.features(v, d.driverSel)
	case comStatus:
		meaning = statusText(v)
	case comConfigVector, comQueueVector:
		if v == noVector {
			meaning = "none"
		}
	default:
		if off >= comQueueSize {
			meaning = fmt.Sprintf("queue %d", d.queue)
		}
	}
	return commonNames[off], meaning
}

// configField is a field of a device type's configuration space.
type configField struct {
	at   uint64
	name string
}

// configFields are the configuration spaces (§5.1.4, §5.2.4, §5.3.4, §5.5.4,
// §5.10.4, §5.11.4, §5.19.4, and Linux's 9p.h).
var configFields = map[DeviceID][]configField{
	IDNet: {{0, "mac"}, {6, "status"}, {8, "max_virtqueue_pairs"}, {10, "mtu"}, {12, "speed"}, {16, "duplex"}},
	IDBlock: {{0, "capacity"}, {8, "size_max"}, {12, "seg_max"}, {16, "geometry"}, {20, "blk_size"}, {24, "topology"}, {32, "writeback"},
		{34, "num_queues"}, {36, "max_discard_sectors"}, {40, "max_discard_seg"}, {44, "discard_sector_alignment"},
		{48, "max_write_zeroes_sectors"}, {52, "max_write_zeroes_seg"}, {56, "write_zeroes_may_unmap"}},
	IDConsole: {{0, "cols"}, {2, "rows"}, {4, "max_nr_ports"}, {8, "emerg_wr"}},
	IDBalloon: {{0, "num_pages"}, {4, "actual"}},
	IDVsock:   {{0, "guest_cid"}},
	IDFS:      {{0, "tag"}, {36, "num_request_queues"}},
	IDPmem:    {{0, "start"}, {8, "size"}},
	ID9P:      {{0, "tag_len"}, {2, "tag"}},
}

func (d *Decoder) config(off uint64) (register, meaning string) {
	name := ""
	var at uint64
	for _, f := range configFields[d.ID] {
		if off >= f.at {
			name, at = f.name, f.at
		}
	}
	if name == "" {
		return fmt.Sprintf("config+%#x", off), ""
	}
	if off != at {
		return fmt.Sprintf("config.%s+%d", name, off-at), ""
	}
	return "config." + name, ""
}

// QueueName is what queue number i of a device with n queues is for (§5).
func QueueName(id DeviceID, i, n int) string {
	names := map[DeviceID][]string{
		IDConsole: {"receive", "transmit"}, IDBalloon: {"inflate", "deflate", "stats", "free page", "reporting"},
		IDVsock: {"rx", "tx", "event"}, IDEntropy: {"requests"},
	}
	switch {
	case id == IDNet && i == n-1 && n%2 == 1:
		return "control"
	case id == IDNet && i%2 == 0:
		return fmt.Sprintf("receive%d", i/2)
	case id == IDNet:
		return fmt.Sprintf("transmit%d", i/2)
	case i < len(names[id]):
		return names[id][i]
	}
	return fmt.Sprintf("queue%d", i)
}
