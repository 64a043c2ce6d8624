package pvpanic

// Decoder names accesses to the device, for traces.
type Decoder struct{}

// Access names the register, and says what the value means.
func (Decoder) Access(off uint64, _ uint8, write bool, value uint64) (register, meaning string) {
	switch {
	case off != 0:
		return "", ""
	case !write:
		return "events", "what the device knows"
	case value&Panicked != 0:
		return "events", "the kernel panicked"
	case value&CrashLoaded != 0:
		return "events", "the kernel panicked and writes a dump itself"
	}
	return "events", ""
}
