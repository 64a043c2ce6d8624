package i8042

import (
	"fmt"
	"strings"
)

// Decoder names accesses to the controller, for traces. It remembers the
// command that a byte of data belongs to.
type Decoder struct{ command uint8 }

var commandNames = map[uint8]string{cmdDisableAux: "disable the second port", cmdEnableAux: "enable the second port",
	cmdTestAux: "test the second port", cmdSelfTest: "self-test", cmdTestKeyboard: "test the first port",
	cmdDisable: "disable the first port", cmdEnable: "enable the first port", cmdReadInput: "read the input port",
	cmdReadOutput: "read the output port", cmdWriteOutput: "write the output port", cmdLoop: "write as from the keyboard",
	cmdLoopAux: "write as from the second port", cmdWriteAux: "write to the second port"}

// commandName names a command byte.
func commandName(v uint8) string {
	switch {
	case v >= cmdPulse && v&outputReset == 0:
		return "pulse the reset line"
	case v >= cmdPulse:
		return "pulse output lines"
	case v&^0x1f == cmdReadRAM:
		return fmt.Sprintf("read RAM %d", v&0x1f)
	case v&^0x1f == cmdWriteRAM:
		return fmt.Sprintf("write RAM %d", v&0x1f)
	}
	return commandNames[v]
}

// Access names the register at off, and says what the value means ("" where
// there is nothing to say).
func (d *Decoder) Access(off uint64, _ uint8, write bool, value uint64) (register, meaning string) {
	v := uint8(value)
	switch {
	case off == Data && write && d.command != 0:
		meaning = "for: " + commandName(d.command)
		d.command = 0
		return "data", meaning
	case off == Data && write:
		return "data", "to the keyboard"
	case off == Data:
		return "data", ""
	case off == Control && write:
		d.command = v
		return "command", commandName(v)
	case off == Control:
		return "status", statusText(v)
	}
	return "", ""
}

func statusText(v uint8) string {
	var set []string
	for _, n := range []struct {
		bit  uint8
		name string
	}{{statusOutput, "output full"}, {1 << 1, "input full"}, {statusSystem, "self-test passed"}, {statusCommand, "command"},
		{statusUnlock, "unlocked"}, {1 << 5, "from the second port"}, {statusTimeout, "timeout"}, {1 << 7, "parity error"}} {
		if v&n.bit != 0 {
			set = append(set, n.name)
		}
	}
	return strings.Join(set, ", ")
}
