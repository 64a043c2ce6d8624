package acpi

import (
	"encoding/binary"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// Offsets in the FADT, revision 6 (ACPI 6.4 table 5-33). What is left out is
// the fixed hardware that a hardware-reduced machine does not have, and zero.
//
//	 40  DSDT (4)               128  RESET_VALUE (1)
//	 45  profile (1)            131  minor version (1)
//	108  CENTURY (1)            140  X_DSDT (8)
//	109  IAPC_BOOT_ARCH (2)     244  SLEEP_CONTROL_REG (12)
//	112  flags (4)              256  SLEEP_STATUS_REG (12)
//	116  RESET_REG (12)         268  hypervisor vendor (8)
const (
	fadtDSDT       = 40
	fadtProfile    = 45
	fadtCentury    = 108
	fadtBootArch   = 109
	fadtFlags      = 112
	fadtReset      = 116
	fadtResetValue = 128
	fadtMinor      = 131
	fadtXDSDT      = 140
	fadtSleepCtl   = 244
	fadtSleepStat  = 256
	fadtHypervisor = 268
	fadtSize       = 276

	fadtMinorVersion    = 3
	profileUnspecified  = 0
	centuryCMOS         = 0x32
	archLegacyDevices   = 1 << 0 // IAPC_BOOT_ARCH, table 5-36
	archI8042           = 1 << 1
	archNoVGA           = 1 << 2
	archNoASPM          = 1 << 4
	archNoRTC           = 1 << 5
	flagWBINVD          = 1 << 0 // flags, table 5-35
	flagC1              = 1 << 2
	flagPowerButton     = 1 << 4 // a device in the DSDT, no fixed register
	flagSleepButton     = 1 << 5
	flagNoFixedRTC      = 1 << 6
	flagReset           = 1 << 10
	flagHeadless        = 1 << 12
	flagHardwareReduced = 1 << 20
)

func fadtBody(c *Config, dsdt memory.Addr) []byte {
	b := make([]byte, fadtSize)
	le := binary.LittleEndian
	le.PutUint32(b[fadtDSDT:], uint32(dsdt))
	b[fadtProfile] = profileUnspecified
	if c.RTC {
		b[fadtCentury] = centuryCMOS
	}
	le.PutUint16(b[fadtBootArch:], bootArch(c))
	le.PutUint32(b[fadtFlags:], flagWBINVD|flagC1|flagPowerButton|flagSleepButton|flagNoFixedRTC|
		flagReset|flagHeadless|flagHardwareReduced)
	putPort(b[fadtReset:], PortReset)
	b[fadtResetValue] = ResetValue
	b[fadtMinor] = fadtMinorVersion
	le.PutUint64(b[fadtXDSDT:], uint64(dsdt))
	putPort(b[fadtSleepCtl:], PortSleepControl)
	putPort(b[fadtSleepStat:], PortSleepStatus)
	copy(b[fadtHypervisor:], "VITRINE ")
	return b[headerSize:]
}

func bootArch(c *Config) (flags uint16) {
	flags = archNoVGA | archNoASPM
	if c.COM1 || c.COM2 {
		flags |= archLegacyDevices
	}
	if c.I8042 {
		flags |= archI8042 | archLegacyDevices
	}
	if !c.RTC {
		flags |= archNoRTC
	}
	return flags
}

// putPort encodes a generic address (§5.2.3.2) of a byte of I/O space: space
// (1), width in bits (1), offset (1), access size (1) = byte, address (8).
func putPort(b []byte, port uint64) {
	b[0], b[1], b[2], b[3] = spaceSystemIO, 8, 0, 1
	binary.LittleEndian.PutUint64(b[4:], port)
}
