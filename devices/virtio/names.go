package virtio

import "fmt"

// String names a device type as virtio 1.2 §5 does, in short.
func (id DeviceID) String() string {
	switch id {
	case IDNet:
		return "net"
	case IDBlock:
		return "block"
	case IDConsole:
		return "console"
	case IDEntropy:
		return "entropy"
	case IDBalloon:
		return "balloon"
	case ID9P:
		return "9p"
	case IDVsock:
		return "vsock"
	case IDFS:
		return "fs"
	case IDPmem:
		return "pmem"
	}
	return fmt.Sprintf("device type %d", uint32(id))
}

// StatusNames names the bits of a device status (§2.1), in the order in which
// a driver sets them.
func StatusNames(status uint8) []string {
	return bitNames(uint64(status), []bitName{
		{0, "ACKNOWLEDGE"}, {1, "DRIVER"}, {3, "FEATURES_OK"}, {2, "DRIVER_OK"}, {6, "DEVICE_NEEDS_RESET"}, {7, "FAILED"},
	})
}

type bitName struct {
	bit  int
	name string
}

// bitNames names what it can and numbers the rest.
func bitNames(v uint64, known []bitName) []string {
	var names []string
	for _, k := range known {
		if v&(1<<k.bit) != 0 {
			names = append(names, k.name)
			v &^= 1 << k.bit
		}
	}
	for i := range 64 {
		if v&(1<<i) != 0 {
			names = append(names, fmt.Sprintf("bit %d", i))
		}
	}
	return names
}

// FeatureNames names the feature bits of a device of type id (§5, §6) without
// the prefix VIRTIO_F_ or that of the type.
func FeatureNames(id DeviceID, features uint64) []string {
	return bitNames(features, append(deviceFeatures[id], ringFeatures...))
}

var ringFeatures = []bitName{
	{28, "INDIRECT_DESC"}, {29, "EVENT_IDX"}, {32, "VERSION_1"}, {33, "ACCESS_PLATFORM"}, {34, "RING_PACKED"},
	{35, "IN_ORDER"}, {36, "ORDER_PLATFORM"}, {37, "SR_IOV"}, {38, "NOTIFICATION_DATA"}, {39, "NOTIF_CONFIG_DATA"}, {40, "RING_RESET"},
}

var deviceFeatures = map[DeviceID][]bitName{
	IDNet: { // §5.1.3
		{0, "CSUM"}, {1, "GUEST_CSUM"}, {2, "CTRL_GUEST_OFFLOADS"}, {3, "MTU"}, {5, "MAC"}, {7, "GUEST_TSO4"}, {8, "GUEST_TSO6"},
		{9, "GUEST_ECN"}, {10, "GUEST_UFO"}, {11, "HOST_TSO4"}, {12, "HOST_TSO6"}, {13, "HOST_ECN"}, {14, "HOST_UFO"},
		{15, "MRG_RXBUF"}, {16, "STATUS"}, {17, "CTRL_VQ"}, {18, "CTRL_RX"}, {19, "CTRL_VLAN"}, {21, "GUEST_ANNOUNCE"},
		{22, "MQ"}, {23, "CTRL_MAC_ADDR"}, {54, "GUEST_USO4"}, {55, "GUEST_USO6"}, {56, "HOST_USO"}, {57, "HASH_REPORT"},
		{59, "GUEST_HDRLEN"}, {60, "RSS"}, {61, "RSC_EXT"}, {62, "STANDBY"}, {63, "SPEED_DUPLEX"},
	},
	IDBlock: { // §5.2.3
		{1, "SIZE_MAX"}, {2, "SEG_MAX"}, {4, "GEOMETRY"}, {5, "RO"}, {6, "BLK_SIZE"}, {9, "FLUSH"}, {10, "TOPOLOGY"},
		{11, "CONFIG_WCE"}, {12, "MQ"}, {13, "DISCARD"}, {14, "WRITE_ZEROES"}, {15, "LIFETIME"}, {16, "SECURE_ERASE"},
	},
	IDConsole: {{0, "SIZE"}, {1, "MULTIPORT"}, {2, "EMERG_WRITE"}}, // §5.3.3
	IDBalloon: { // §5.5.3
		{0, "MUST_TELL_HOST"}, {1, "STATS_VQ"}, {2, "DEFLATE_ON_OOM"}, {3, "FREE_PAGE_HINT"}, {4, "PAGE_POISON"}, {5, "PAGE_REPORTING"},
	},
	IDVsock: {{0, "STREAM"}, {1, "SEQPACKET"}}, // §5.10.3
	ID9P:    {{0, "MOUNT_TAG"}},                // Linux's virtio_9p.h
}
