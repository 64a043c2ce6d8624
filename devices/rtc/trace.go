package rtc

import "fmt"

// Decoder names accesses to the chip, for traces. It remembers the index.
type Decoder struct {
	index uint8
	known bool
}

var registerNames = map[uint8]string{regSeconds: "seconds", 0x01: "seconds alarm", regMinutes: "minutes", 0x03: "minutes alarm",
	regHours: "hours", 0x05: "hours alarm", regWeekday: "weekday", regDay: "day", regMonth: "month", regYear: "year",
	regA: "register A", regB: "register B", regC: "register C", regD: "register D", Century: "century",
	regBaseLow: "base memory low", regBaseLow + 1: "base memory high", regExtLow: "extended memory low", regExtLow + 1: "extended memory high",
	regExtLow2: "extended memory low", regExtLow2 + 1: "extended memory high", regAbove16M: "memory above 16 MiB low", regAbove16M + 1: "memory above 16 MiB high",
	regAbove4G: "memory above 4 GiB low", regAbove4G + 1: "memory above 4 GiB middle", regAbove4G + 2: "memory above 4 GiB high", 0x0f: "shutdown status"}

// registerName names a register of the chip.
func registerName(index uint8) string {
	if n := registerNames[index]; n != "" {
		return n
	}
	return fmt.Sprintf("CMOS %#02x", index)
}

// Access names the register at off, and says what the value means.
func (d *Decoder) Access(off uint64, _ uint8, write bool, value uint64) (register, meaning string) {
	switch {
	case off == Index && write:
		d.index, d.known = uint8(value)&indexMask, true
		return "index", registerName(d.index)
	case off == Index:
		return "index", "for writing only"
	case off == Data && d.known:
		return "data", registerName(d.index)
	case off == Data:
		return "data", ""
	}
	return "", ""
}
