package boot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// Fields of the setup header, as offsets in the file and, from setupHeader on,
// in boot_params too (Documentation/arch/x86/boot.rst, "The Real-Mode Kernel
// Header").
//
//	0x1f1 setup_sects (1)         0x22c initrd_addr_max (4)
//	0x1f2 root_flags (2)          0x230 kernel_alignment (4)
//	0x1f4 syssize (4)             0x234 relocatable_kernel (1)
//	0x1fe boot_flag (2) = aa55    0x235 min_alignment (1)
//	0x200 jump (2)                0x236 xloadflags (2)
//	0x202 header (4) = "HdrS"     0x238 cmdline_size (4)
//	0x206 version (2)             0x23c hardware_subarch (4)
//	0x210 type_of_loader (1)      0x240 hardware_subarch_data (8)
//	0x211 loadflags (1)           0x248 payload_offset (4)
//	0x214 code32_start (4)        0x24c payload_length (4)
//	0x218 ramdisk_image (4)       0x250 setup_data (8)
//	0x21c ramdisk_size (4)        0x258 pref_address (8)
//	0x224 heap_end_ptr (2)        0x260 init_size (4)
//	0x228 cmd_line_ptr (4)        0x264 handover_offset (4)
const (
	setupHeader       = 0x1f1
	hdrSetupSects     = 0x1f1
	hdrSyssize        = 0x1f4
	hdrBootFlag       = 0x1fe
	hdrJump           = 0x200
	hdrMagic          = 0x202
	hdrVersion        = 0x206
	hdrTypeOfLoader   = 0x210
	hdrLoadflags      = 0x211
	hdrCode32Start    = 0x214
	hdrRamdiskImage   = 0x218
	hdrRamdiskSize    = 0x21c
	hdrCmdLinePtr     = 0x228
	hdrInitrdAddrMax  = 0x22c
	hdrKernelAlign    = 0x230
	hdrRelocatable    = 0x234
	hdrXloadflags     = 0x236
	hdrCmdlineSize    = 0x238
	hdrPayloadOffset  = 0x248
	hdrPayloadLength  = 0x24c
	hdrSetupData      = 0x250
	hdrPrefAddress    = 0x258
	hdrInitSize       = 0x260
	setupHeaderEnd    = 0x268 // end of the fields above
	setupHeaderMaxEnd = 0x290 // what boot_params has room for

	sector = 512

	bootFlag        = 0xaa55
	magicHdrS       = "HdrS"
	loadedHigh      = 1 << 0 // loadflags: the protected-mode part goes to 1 MiB or higher
	xlf64           = 1 << 0 // xloadflags: there is a 64-bit entry at 0x200
	loaderUndefined = 0xff   // type_of_loader of a loader without a number
	entry64Offset   = 0x200

	versionPayload = 0x0208 // the first protocol version with payload_offset
	version64      = 0x020c // the first one with xloadflags

	// initrdAddrMax and commandLineSize are what a Linux without a setup
	// header (an ELF) is taken to allow: the values in the header of every
	// x86-64 kernel (COMMAND_LINE_SIZE - 1).
	initrdAddrMax   = 0x7fff_ffff
	commandLineSize = 2047
)

// bzImage is a checked setup header.
type bzImage struct {
	header       []byte // the file from setupHeader on, as far as the setup header goes
	version      uint16
	protected    uint64 // offset of the protected-mode part in the file
	protectedLen uint64
	payload      uint64 // offset of the payload in the file; 0: not told
	payloadLen   uint64

	entry64       bool
	relocatable   bool
	alignment     uint64
	prefAddress   uint64
	initSize      uint64
	initrdAddrMax uint64
	cmdlineSize   uint64
}

// isBzImage says whether b, the first bytes of a file, has the two magics.
func isBzImage(b []byte) bool {
	return len(b) >= setupHeaderEnd && binary.LittleEndian.Uint16(b[hdrBootFlag:]) == bootFlag &&
		string(b[hdrMagic:hdrMagic+4]) == magicHdrS
}

// parseBzImage checks the setup header of a file of size bytes.
func parseBzImage(r io.ReaderAt, size uint64) (*bzImage, error) {
	b := make([]byte, setupHeaderMaxEnd)
	if err := readAt(r, b, 0); err != nil {
		return nil, fmt.Errorf("setup header: %w", err)
	}
	if !isBzImage(b) {
		return nil, errors.New("no boot flag and \"HdrS\" magic")
	}
	le := binary.LittleEndian
	bz := &bzImage{version: le.Uint16(b[hdrVersion:])}
	if bz.version < versionPayload {
		return nil, fmt.Errorf("boot protocol %s is older than 2.08: use a newer kernel", protocolVersion(bz.version))
	}
	if b[hdrLoadflags]&loadedHigh == 0 {
		return nil, errors.New("a zImage, which loads below 1 MiB: build a bzImage")
	}
	// The header ends where the jump at 0x200 lands: its second byte counts
	// from 0x202 (boot.rst, "jump").
	headerEnd := min(hdrMagic+int(b[hdrJump+1]), setupHeaderMaxEnd)
	if headerEnd < hdrPayloadLength+4 {
		return nil, fmt.Errorf("setup header ends at %#x, before its fields", headerEnd)
	}
	clear(b[headerEnd:])
	bz.header = b[setupHeader:headerEnd]

	if err := bz.locate(b, size); err != nil {
		return nil, err
	}
	bz.relocatable = b[hdrRelocatable] != 0
	bz.alignment = uint64(le.Uint32(b[hdrKernelAlign:]))
	if bz.relocatable && (bz.alignment == 0 || bz.alignment&(bz.alignment-1) != 0) {
		return nil, fmt.Errorf("setup header: alignment %#x is no power of two", bz.alignment)
	}
	bz.initrdAddrMax = uint64(le.Uint32(b[hdrInitrdAddrMax:]))
	if bz.initrdAddrMax < uint64(highMemory) {
		return nil, fmt.Errorf("setup header: highest address of an initrd %#x is below 1 MiB", bz.initrdAddrMax)
	}
	bz.cmdlineSize = uint64(le.Uint32(b[hdrCmdlineSize:]))
	if bz.version >= version64 {
		bz.entry64 = le.Uint16(b[hdrXloadflags:])&xlf64 != 0
		bz.prefAddress = le.Uint64(b[hdrPrefAddress:])
		bz.initSize = uint64(le.Uint32(b[hdrInitSize:]))
	}
	return bz, nil
}

// locate finds the protected-mode part and the payload in the file.
func (bz *bzImage) locate(b []byte, size uint64) error {
	le := binary.LittleEndian
	sects := uint64(b[hdrSetupSects])
	if sects == 0 {
		sects = 4 // boot.rst, "setup_sects"
	}
	bz.protected = (sects + 1) * sector
	if bz.protected >= size {
		return fmt.Errorf("%d setup sectors, but the file has %d bytes: it is cut short", sects, size)
	}
	rest := size - bz.protected
	// syssize counts paragraphs of 16 bytes, rounded up.
	bz.protectedLen = uint64(le.Uint32(b[hdrSyssize:])) * 16
	if bz.protectedLen == 0 || bz.protectedLen > rest+15 {
		return fmt.Errorf("the protected-mode part has %d bytes, the file %d of them: it is cut short", bz.protectedLen, rest)
	}
	bz.protectedLen = min(bz.protectedLen, rest)

	off, n := uint64(le.Uint32(b[hdrPayloadOffset:])), uint64(le.Uint32(b[hdrPayloadLength:]))
	if off == 0 || n == 0 {
		return nil
	}
	if off > rest || n > rest-off {
		return fmt.Errorf("the payload of %d bytes at %#x lies past the protected-mode part's %d", n, off, rest)
	}
	bz.payload, bz.payloadLen = bz.protected+off, n
	return nil
}

// place64 is where the protected-mode part goes when the kernel is to unpack
// itself: the preferred address, or the highest suitable one below ramEnd if
// that does not fit and the kernel is relocatable. The kernel works in the
// memory from there to end (boot.rst, "init_size"). That neither place fits is
// for the caller to see.
func (bz *bzImage) place64(ramEnd uint64) (addr, end uint64, err error) {
	if !bz.entry64 {
		return 0, 0, fmt.Errorf("boot protocol %s without a 64-bit entry: a 32-bit kernel, or one older than 3.8",
			protocolVersion(bz.version))
	}
	if bz.protectedLen <= entry64Offset {
		return 0, 0, fmt.Errorf("the protected-mode part has %d bytes and ends before its 64-bit entry: it is cut short", bz.protectedLen)
	}
	need := max(bz.initSize, bz.protectedLen)
	addr = bz.prefAddress
	if addr < uint64(highMemory) || addr > math.MaxUint32 {
		return 0, 0, fmt.Errorf("setup header: preferred address %#x", addr)
	}
	if need > ramEnd || addr > ramEnd-need {
		lower := (ramEnd - min(need, ramEnd)) &^ (max(bz.alignment, 1) - 1)
		if bz.relocatable && lower >= uint64(highMemory) {
			addr = lower
		}
	}
	return addr, addr + need, nil
}

func protocolVersion(v uint16) string { return fmt.Sprintf("%d.%02d", v>>8, v&0xff) }
