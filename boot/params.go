package boot

import (
	"encoding/binary"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// Fields of boot_params outside the setup header (Documentation/arch/x86/
// zero-page.rst). All others stay zero, which means: no screen, no APM, no EFI.
//
//	0x000 screen_info (64)           0x1e8 e820_entries (1)
//	0x070 acpi_rsdp_addr (8)         0x1ef sentinel (1) = 0
//	0x0c0 ext_ramdisk_image (4)      0x1f1 setup header, to 0x290 at most
//	0x0c4 ext_ramdisk_size (4)       0x2d0 e820_table: 128 entries of
//	0x0c8 ext_cmd_line_ptr (4)             addr (8), size (8), type (4)
const (
	paramsRSDP        = 0x070
	paramsE820Entries = 0x1e8
	paramsE820Table   = 0x2d0
	paramsSize        = 4096
	e820EntrySize     = 20
)

// params is what boot_params tells the kernel.
type params struct {
	header  []byte // the image's setup header from 0x1f1 on; nil: an ELF, which has none
	load    uint64 // where the protected-mode part is
	initrd  blob
	cmdline blob
	rsdp    uint64
	e820    []e820Entry
}

// blob is a piece of guest memory; the zero value is none.
type blob struct{ addr, size uint64 }

// elfSetupHeader is the setup header for a kernel that was built without one, with
// the fields that the kernel proper reads.
func elfSetupHeader() []byte {
	h := make([]byte, setupHeaderEnd-setupHeader)
	le := binary.LittleEndian
	le.PutUint16(h[hdrBootFlag-setupHeader:], bootFlag)
	copy(h[hdrMagic-setupHeader:], magicHdrS)
	le.PutUint16(h[hdrVersion-setupHeader:], version64)
	le.PutUint32(h[hdrInitrdAddrMax-setupHeader:], initrdAddrMax)
	le.PutUint32(h[hdrKernelAlign-setupHeader:], 16<<20)
	le.PutUint32(h[hdrCmdlineSize-setupHeader:], commandLineSize)
	return h
}

// encode lays out boot_params.
func (p *params) encode() []byte {
	b := make([]byte, paramsSize)
	le := binary.LittleEndian
	header := p.header
	if header == nil {
		header = elfSetupHeader()
	}
	copy(b[setupHeader:setupHeaderMaxEnd], header)
	b[hdrTypeOfLoader] = loaderUndefined
	b[hdrLoadflags] |= loadedHigh
	le.PutUint32(b[hdrCode32Start:], uint32(p.load))
	le.PutUint32(b[hdrRamdiskImage:], uint32(p.initrd.addr))
	le.PutUint32(b[hdrRamdiskSize:], uint32(p.initrd.size))
	le.PutUint32(b[hdrCmdLinePtr:], uint32(p.cmdline.addr))
	le.PutUint64(b[hdrSetupData:], 0)

	le.PutUint64(b[paramsRSDP:], p.rsdp)
	b[paramsE820Entries] = uint8(len(p.e820))
	for i, e := range p.e820 {
		t := b[paramsE820Table+i*e820EntrySize:]
		le.PutUint64(t, e.addr)
		le.PutUint64(t[8:], e.size)
		le.PutUint32(t[16:], e.kind)
	}
	return b
}

func (p *params) write(g *memory.Guest) error { return g.WriteAt(p.encode(), paramsAddr) }
