package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/vitrine-vmm/vitrine/docs/labs"
	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

const (
	kernelAt = 0x100000 // LOAD of the exercise
	lowEnd   = 0x9fc00
	e820RAM  = 1
)

// runBoot loads Linux with the learner's loader, or shows a header.
func runBoot(ctx context.Context, program []byte, o Options, w io.Writer) error {
	demo, err := labs.Files.ReadFile(bootFolder + "/demo.bin")
	if err != nil {
		return err
	}
	s := headerStart()
	if !bytes.Equal(demo, program) {
		if s, err = linuxStart(ctx, o); err != nil {
			return err
		}
		o = forLinux(o)
	}
	r, err := Run(ctx, program, s, o)
	if err != nil {
		return err
	}
	defer r.Close()
	fmt.Fprintln(w, strings.TrimRight(r.Output, "\r\n"))
	if !r.Halted {
		return fmt.Errorf("%s", r.Why)
	}
	return nil
}

// judgeBoot tries a loader with two small kernels, whose check can tell what is
// wrong, then with Linux.
func judgeBoot(ctx context.Context, program []byte, o Options) ([]string, error) {
	for _, c := range []struct {
		setupSects int
		ramdisk    string
		memory     uint64
	}{{1, "a RAM disk", guestMost}, {4, "another RAM disk of another size", guestMost + 4<<20}} {
		img, err := smallImage(c.setupSects)
		if err != nil {
			return nil, err
		}
		r, err := Run(ctx, program, loaderStart(img, []byte(c.ramdisk), c.memory), o)
		if err != nil {
			return nil, err
		}
		broken := r.judgeLoader(img)
		if err := r.Close(); err != nil || broken != "" {
			return []string{broken}, err
		}
	}
	s, err := linuxStart(ctx, o)
	if err != nil {
		return nil, err
	}
	r, err := Run(ctx, program, s, forLinux(o))
	if err != nil {
		return nil, err
	}
	var broken []string
	if !r.Halted || !strings.Contains(r.Output, greeting) {
		broken = []string{fmt.Sprintf("Linux must come to its first program, and did not: %s; its console ends with\n%s", r.Why, lastLines(r.Output, 5))}
	}
	return broken, r.Close()
}

// forLinux chooses, where nobody else has, the software CPU where it boots
// faster, and gives a boot the time that it needs.
func forLinux(o Options) Options {
	least := 20 * time.Second
	if vmm.KernelsEmulated() {
		switch vmm.Accelerator(o.Accel) {
		case vmm.AccelAuto:
			o.Accel = string(vmm.AccelSoft)
		case vmm.AccelKVM:
			least = 2 * time.Minute
		}
	}
	o.Limit = max(o.Limit, least)
	return o
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\r\n"), "\n")
	return strings.Join(lines[max(len(lines)-n, 0):], "\n")
}

// handover is what a kernel was handed.
type handover struct {
	r      *Result
	img    image
	params []byte // boot_params
}

// judgeLoader says what of the 32-bit boot protocol was not kept, "" if nothing
// (boot.rst, "32-bit BOOT PROTOCOL").
func (r *Result) judgeLoader(img image) string {
	h := handover{r: r, img: img}
	for _, step := range []func() string{h.placed, h.entered, h.segments, h.registers, h.headerCopied, h.filled, h.commandLine, h.ramdisk, h.memoryMap, h.zeroElsewhere} {
		if s := step(); s != "" {
			return s
		}
	}
	return ""
}

func (h *handover) get32(at int) uint32 { return binary.LittleEndian.Uint32(h.params[at:]) }
func (h *handover) get64(at int) uint64 { return binary.LittleEndian.Uint64(h.params[at:]) }

// untouched says whether a loader has not yet begun with the kernel.
func (h *handover) untouched(got []byte) bool { return bytes.Equal(got, make([]byte, len(got))) }

// placed compares the kernel with its file.
func (h *handover) placed() string {
	want := h.img.protected
	got := make([]byte, len(want))
	if err := h.r.Mem.ReadAt(got, kernelAt); err != nil || bytes.Equal(got, want) {
		return ""
	}
	from := len(h.img.file) - len(want)
	if h.untouched(got) && h.r.Halted && h.r.Regs.RIP < kernelAt {
		return "" // entered says more
	}
	i := 0
	for got[i] == want[i] {
		i++
	}
	return fmt.Sprintf("the protected-mode part must be at %#x: %d bytes (syssize × 16) from offset (setup_sects + 1) × 512 = %#x of the file; at %#x there is %#x where it has %#x",
		kernelAt, len(want), from, kernelAt+i, got[i], want[i])
}

func (h *handover) entered() string {
	rip := h.r.Regs.RIP
	switch {
	case !h.r.Halted:
		return "the kernel does not run: " + h.r.Why
	case rip < kernelAt || rip > kernelAt+uint64(len(h.img.protected)):
		return fmt.Sprintf("the kernel was not entered: the loader halted at rip %#x, before its jump to %#x", rip, kernelAt)
	}
	return ""
}

// segments: flat, with the selectors that the protocol names, in a GDT that has
// them.
func (h *handover) segments() string {
	const bootCS, bootDS = 0x10, 0x18
	s := &h.r.Sregs
	if s.CR0&x86.CR0PE == 0 || s.CR0&x86.CR0PG != 0 {
		return fmt.Sprintf("the CPU must be in protected mode without paging, and CR0 is %#x", s.CR0)
	}
	if s.CS.Selector != bootCS {
		return fmt.Sprintf("CS must be %#x (__BOOT_CS), and is %#x", bootCS, s.CS.Selector)
	}
	for _, d := range []struct {
		name string
		seg  x86.Segment
	}{{"DS", s.DS}, {"ES", s.ES}, {"SS", s.SS}} {
		if d.seg.Selector != bootDS {
			return fmt.Sprintf("%s must be %#x (__BOOT_DS), and is %#x", d.name, bootDS, d.seg.Selector)
		}
	}
	for _, d := range []struct {
		at   uint64
		want uint64 // but for the accessed bit
		name string
	}{{bootCS, 0x00cf9a000000ffff, "code"}, {bootDS, 0x00cf92000000ffff, "data"}} {
		const accessed = 1 << 40
		got, err := h.r.Mem.LoadUint64(memory.Addr(s.GDT.Base + d.at))
		if err != nil || uint64(s.GDT.Limit) < d.at+7 || got&^accessed != d.want {
			return fmt.Sprintf("the GDT (at %#x, limit %#x) must have a flat %s descriptor at %#x, such as %#x", s.GDT.Base, s.GDT.Limit, d.name, d.at, d.want|accessed)
		}
	}
	return ""
}

func (h *handover) registers() string {
	g := &h.r.Regs
	h.params = make([]byte, memory.PageSize)
	if err := h.r.Mem.ReadAt(h.params, memory.Addr(g.RSI)); err != nil {
		return fmt.Sprintf("ESI must be the address of boot_params, and is %#x, where there is no memory", g.RSI)
	}
	if string(h.params[offMagic:offMagic+4]) != "HdrS" {
		return fmt.Sprintf("ESI must be the address of boot_params, with \"HdrS\" at offset %#x; it is %#x, and there is %q", offMagic, g.RSI, h.params[offMagic:offMagic+4])
	}
	if g.RSI >= bzImageAt && g.RSI < bzImageAt+uint64(len(h.img.file)) {
		return fmt.Sprintf("ESI must be the address of boot_params, a page of its own, and is %#x, in the image", g.RSI)
	}
	if g.RBX|g.RBP|g.RDI != 0 {
		return fmt.Sprintf("EBX, EBP and EDI must be zero, and are %#x, %#x and %#x", g.RBX, g.RBP, g.RDI)
	}
	return ""
}

// loadersFields are the parts of the setup header that a loader writes or may
// change.
var loadersFields = [][2]int{{offVidMode, 2}, {offTypeOfLoader, 1}, {offLoadflags, 1}, {offCode32Start, 4},
	{offRamdiskImage, 8}, {offHeapEnd, 4}, {offCmdLine, 4}, {offSetupData, 8}}

// headerNames are fields of it, by offset.
var headerNames = map[int]string{0x1f1: "setup_sects", 0x1f2: "root_flags", 0x1f4: "syssize", 0x1fe: "boot_flag", 0x200: "jump",
	0x202: "header", 0x206: "version", 0x22c: "initrd_addr_max", 0x230: "kernel_alignment", 0x238: "cmdline_size",
	0x258: "pref_address", 0x260: "init_size"}

func (h *handover) headerCopied() string {
	for at := offSetupSects; at < h.img.header; at++ {
		own := slices.ContainsFunc(loadersFields, func(f [2]int) bool { return at >= f[0] && at < f[0]+f[1] })
		if own || h.params[at] == h.img.file[at] {
			continue
		}
		return fmt.Sprintf("the setup header, from 0x1f1 to %#x (0x202 + the byte at 0x201), must be copied from the image into boot_params, and at offset %s there is %#x where the image has %#x",
			h.img.header, fieldName(at), h.params[at], h.img.file[at])
	}
	return ""
}

func fieldName(at int) string {
	for back := range 8 {
		if n := headerNames[at-back]; n != "" {
			return fmt.Sprintf("%#x (%s)", at, n)
		}
	}
	return fmt.Sprintf("%#x", at)
}

func (h *handover) filled() string {
	const loadedHigh = 1
	switch {
	case h.params[offTypeOfLoader] == 0:
		return "type_of_loader (0x210) must be 0xff, a loader without a number of its own, and is 0: the kernel would believe that nobody filled in the rest"
	case h.params[offLoadflags]&loadedHigh == 0:
		return "loadflags (0x211) must keep bit 0, LOADED_HIGH: the protected-mode part is at 1 MiB"
	}
	return ""
}

func (h *handover) commandLine() string {
	const want = "console=ttyS0"
	at := h.get32(offCmdLine)
	text := make([]byte, 256)
	err := h.r.Mem.ReadAt(text, memory.Addr(at))
	end := bytes.IndexByte(text, 0)
	if at == 0 || err != nil || end < 0 || !strings.Contains(string(text[:end]), want) {
		return fmt.Sprintf("cmd_line_ptr (0x228) must point to the command line, which ends by a zero byte and has %q; it is %#x", want, at)
	}
	return ""
}

func (h *handover) ramdisk() string {
	image, size := uint64(h.get32(offRamdiskImage)), uint64(h.get32(offRamdiskSize))
	switch s := &h.r.Start; {
	case image != s.BX:
		return fmt.Sprintf("ramdisk_image (0x218) must be %#x, where the RAM disk is, and is %#x", s.BX, image)
	case size != s.CX:
		return fmt.Sprintf("ramdisk_size (0x21c) must be %#x, and is %#x", s.CX, size)
	}
	return ""
}

// memoryMap checks the E820 map: all RAM from 1 MiB on, what there is below
// the hole, and nothing else.
func (h *handover) memoryMap() string {
	const entry, most = 20, 128
	end := h.r.Start.DX
	n := int(h.params[offE820Entries])
	if n == 0 || n > most {
		return fmt.Sprintf("e820_entries (0x1e8) must count the ranges of memory at 0x2d0, and is %d", n)
	}
	low, high := false, false
	for i := range n {
		at := offE820Table + i*entry
		base, size, kind := h.get64(at), h.get64(at+8), h.get32(at+16)
		name := fmt.Sprintf("E820 entry %d (%#x bytes at %#x, type %d)", i, size, base, kind)
		switch to := base + size; {
		case kind != e820RAM:
			continue
		case to < base || to > end:
			return fmt.Sprintf("%s goes past the end of RAM, %#x: an entry has an address and a size", name, end)
		case base < kernelAt && to > lowEnd:
			return fmt.Sprintf("%s covers the 384 KiB below 1 MiB, from 0x9fc00 on, which are not for the kernel", name)
		case base == 0 && to == lowEnd:
			low = true
		case base == kernelAt && to == end:
			high = true
		}
	}
	if !low || !high {
		return fmt.Sprintf("the E820 map must have RAM (type 1) from 0 to %#x and from %#x to %#x", lowEnd, kernelAt, end)
	}
	return ""
}

func (h *handover) zeroElsewhere() string {
	n := int(h.params[offE820Entries])
	for at, b := range h.params {
		switch {
		case b == 0, at == offE820Entries, at >= offSetupSects && at < h.img.header,
			at >= offE820Table && at < offE820Table+20*n:
			continue
		}
		name := ""
		if b := h.params[offSentinel]; b != 0 {
			at, name = offSentinel, " (sentinel)"
		}
		return fmt.Sprintf("boot_params must be zero outside of the setup header and the E820 map, and is not at offset %#x%s: only the header is copied from the image", at, name)
	}
	return ""
}
