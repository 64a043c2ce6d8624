package pci

import "testing"

func TestEveryHeaderRegisterDecodes(t *testing.T) {
	for reg := range uint64(firstCap) {
		if name, _ := Decode(nil, reg, false, 0); name == "" {
			t.Errorf("%#x has no name", reg)
		}
	}
	for _, c := range []struct {
		reg   uint64
		write bool
		v     uint64
		name  string
		text  string
	}{{regCommand, true, 6, "command", "memory space, bus master"}, {regBAR + 4, true, 0xffffffff, "BAR 1", "ask for its size"},
		{regVendor, false, 0xffffffff, "vendor ID", "nothing there"}} {
		if name, text := Decode(nil, c.reg, c.write, c.v); name != c.name || text != c.text {
			t.Errorf("%#x: %q %q", c.reg, name, text)
		}
	}
}

func TestCapabilitiesDecode(t *testing.T) {
	f := NewFunction(Identity{Vendor: 1, Device: 2})
	for _, c := range []Capability{{ID: 9, Data: []byte{16, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}}, {ID: 0x11, Data: make([]byte, 10)}} {
		if err := f.AddCapability(c); err != nil {
			t.Fatal(err)
		}
	}
	list := Entries(f.State().Config)
	for reg, want := range map[uint64]string{0x40: "virtio common capability.id", 0x43: "virtio common capability.cfg_type",
		0x48: "virtio common capability.offset", 0x52: "MSI-X capability.control", 0x54: "MSI-X capability.table", 0x58: "MSI-X capability.PBA"} {
		if name, _ := Decode(list, reg, false, 0); name != want {
			t.Errorf("%#x: %q, want %q", reg, name, want)
		}
	}
}

// A list that loops, or leads anywhere, ends.
func FuzzEntries(f *testing.F) {
	b := make([]byte, configSize)
	b[regStatus], b[regCapability], b[0x40], b[0x41] = statusCaps, 0x40, 9, 0x40
	f.Add(b, uint64(0x41))
	f.Fuzz(func(t *testing.T, b []byte, reg uint64) {
		if list := Entries(b); len(list) > configSize/4 {
			t.Fatalf("%d capabilities", len(list))
		}
		Decode(Entries(b), reg, true, 0)
	})
}
