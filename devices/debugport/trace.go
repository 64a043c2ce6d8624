package debugport

// Decoder names accesses to the port, for traces.
type Decoder struct{}

// Access names the register, and says what the value means.
func (Decoder) Access(off uint64, _ uint8, write bool, value uint64) (register, meaning string) {
	switch {
	case off != 0:
		return "", ""
	case !write:
		return "presence", ""
	}
	switch value {
	case MarkUserSpace:
		return "mark", "user space reached"
	case MarkAgent:
		return "mark", "agent ready"
	case MarkReboot:
		return "mark", "an orderly reboot follows"
	case MarkPowerOff:
		return "mark", "power off"
	}
	return "mark", "the guest's own"
}
