package pci

import "fmt"

var headerNames = map[uint64]string{
	regVendor: "vendor ID", regDevice: "device ID", regCommand: "command", regStatus: "status", regRevision: "revision", regClass: "class code",
	0x0c: "cache line size", 0x0d: "latency timer", 0x0e: "header type", 0x0f: "BIST",
	0x10: "BAR 0", 0x14: "BAR 1", 0x18: "BAR 2", 0x1c: "BAR 3", 0x20: "BAR 4", 0x24: "BAR 5", 0x28: "CardBus CIS",
	regSubVendor: "subsystem vendor ID", regSubDevice: "subsystem ID", 0x30: "expansion ROM", regCapability: "capabilities pointer",
	regLine: "interrupt line", 0x3d: "interrupt pin", 0x3e: "Min_Gnt", 0x3f: "Max_Lat",
}

// Entry is a capability in a function's configuration space.
type Entry struct {
	At, ID uint8
	Type   uint8 `json:",omitempty"` // of a vendor-specific one of virtio's: cfg_type
}

// Entries lists a configuration space's capabilities. The list is whoever
// wrote the space's: it ends where it makes no sense.
func Entries(config []byte) []Entry {
	var list []Entry
	if len(config) < configSize || config[regStatus]&statusCaps == 0 {
		return nil
	}
	const longest = (configSize - firstCap) / 4
	for at := config[regCapability] &^ 3; at >= firstCap && len(list) < longest; at = config[at+1] &^ 3 {
		e := Entry{At: at, ID: config[at]}
		if e.ID == capVendorSpecific && int(at)+3 < len(config) {
			e.Type = config[at+3]
		}
		list = append(list, e)
	}
	return list
}

const (
	capVendorSpecific = 0x09
	capMSIXID         = 0x11
)

// Decode names a register of a function with these capabilities, and says what
// the value means.
func Decode(list []Entry, reg uint64, write bool, v uint64) (register, meaning string) {
	if reg < firstCap {
		return header(reg, write, v)
	}
	var in *Entry
	for i := range list {
		if uint64(list[i].At) <= reg && (in == nil || list[i].At > in.At) {
			in = &list[i]
		}
	}
	if in == nil {
		return fmt.Sprintf("config %#x", reg), ""
	}
	name, off := in.Name(), reg-uint64(in.At)
	return name + "." + capField(in, off), ""
}

// Name names a capability.
func (e *Entry) Name() string {
	switch {
	case e.ID == capMSIXID:
		return "MSI-X capability"
	case e.ID == capVendorSpecific && e.Type >= 1 && e.Type <= 5:
		return "virtio " + [...]string{"", "common", "notify", "ISR", "device", "PCI access"}[e.Type] + " capability"
	}
	return fmt.Sprintf("capability %#x", e.ID)
}

// capField names what is at off in a capability (PCI 3.0 §6.8.2, virtio 1.2
// §4.1.4).
func capField(e *Entry, off uint64) string {
	switch {
	case off == 0:
		return "id"
	case off == 1:
		return "next"
	case e.ID == capMSIXID && off < 12:
		return [...]string{"control", "control", "table", "table", "table", "table", "PBA", "PBA", "PBA", "PBA"}[off-2]
	case e.ID == capVendorSpecific:
		names := map[uint64]string{2: "cap_len", 3: "cfg_type", 4: "bar", 5: "id", 8: "offset", 12: "length", 16: "data"}
		if n := names[off]; n != "" {
			return n
		}
	}
	return fmt.Sprintf("+%d", off)
}

func header(reg uint64, write bool, v uint64) (register, meaning string) {
	for at := reg; ; at-- { // an access may begin inside a field
		if n := headerNames[at]; n != "" {
			register = n
			break
		}
	}
	switch {
	case reg == regCommand:
		meaning = commandText(v)
	case reg >= regBAR && reg < regBAR+24 && write && v == 0xffffffff:
		meaning = "ask for its size"
	case reg == regVendor && !write && v&0xffff == 0xffff:
		meaning = "nothing there"
	}
	return register, meaning
}

func commandText(v uint64) string {
	s := ""
	for _, b := range []struct {
		bit  uint64
		name string
	}{{1, "I/O space"}, {commandMemory, "memory space"}, {1 << 2, "bus master"}, {1 << 6, "parity"}, {1 << 8, "SERR#"}, {1 << 10, "interrupts off"}} {
		if v&b.bit != 0 {
			if s != "" {
				s += ", "
			}
			s += b.name
		}
	}
	return s
}
