package acpipm

import "fmt"

// Decoder names accesses to the registers, for traces.
type Decoder struct{}

// Access names the register at off, and says what the value means.
func (Decoder) Access(off uint64, _ uint8, write bool, v uint64) (register, meaning string) {
	switch {
	case off == SleepControl:
		if write && v&SleepEnable != 0 {
			return "sleep control", fmt.Sprintf("enter S%d", v>>SleepTypeShift&7)
		}
		return "sleep control", ""
	case off == SleepStatus:
		if v&WakeStatus != 0 {
			return "sleep status", "WAK_STS"
		}
		return "sleep status", ""
	case off == ResetControl:
		if write && v == ResetValue {
			return "reset", "reset the machine"
		}
		return "reset", ""
	case off >= EventStatus && off < Size:
		return "event status", eventText(v << (8 * (off - EventStatus)))
	}
	return "", "" // reserved
}

func eventText(v uint64) string {
	s := ""
	if v&EventPowerButton != 0 {
		s = "power button"
	}
	if v&EventGeneration != 0 {
		if s != "" {
			s += ", "
		}
		s += "VM generation id changed"
	}
	if s == "" {
		return "none"
	}
	return s
}
