//go:build linux && amd64

package steps

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	guestimages "github.com/vitrine-vmm/vitrine/guest-images"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

const (
	linuxRAM    = 128 << 20
	commandLine = "earlycon=uart8250,io,0x3f8"
)

// withLinux loads the embedded kernel.
func withLinux(v VMM) (entry uint64, err error) {
	dir, err := os.MkdirTemp("", "own-vmm")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	path, err := guestimages.Path(dir, guestimages.KernelLean)
	if err != nil {
		return 0, err
	}
	kernel, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer kernel.Close()
	if err := v.Open(); err != nil {
		return 0, fmt.Errorf("method Open: %w", err)
	}
	if err := v.AddMemory(linuxRAM); err != nil {
		return 0, fmt.Errorf("method AddMemory: %w", err)
	}
	if err := v.AddCPU(); err != nil {
		return 0, fmt.Errorf("method AddCPU: %w", err)
	}
	if entry, err = v.LoadLinux(kernel, commandLine); err != nil {
		return 0, fmt.Errorf("method LoadLinux: %w", err)
	}
	return entry, nil
}

// Fields of boot_params (Linux Documentation/arch/x86/zero-page.rst, boot.rst).
const (
	paramE820Count = 0x1e8
	paramBootFlag  = 0x1fe
	paramMagic     = 0x202
	paramCmdLine   = 0x228
	paramE820      = 0x2d0
)

// BootParams is where LoadLinux puts boot_params, and Boot points RSI to.
const BootParams = 0x7000

func checkLoadLinux(v VMM) error {
	entry, err := withLinux(v)
	if err != nil {
		return err
	}
	code, err := v.Memory().Bytes(memory.Addr(entry), 16)
	if err != nil {
		return fmt.Errorf("the kernel's entry %#x is outside memory (%v): segments of type PT_LOAD go to their physical address, Paddr", entry, err)
	}
	if strings.Count(string(code), "\x00") == len(code) {
		return fmt.Errorf("there is nothing at the kernel's entry %#x: copy what each PT_LOAD segment has to its Paddr", entry)
	}
	p, err := v.Memory().Bytes(BootParams, 0x1000)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	switch {
	case le.Uint16(p[paramBootFlag:]) != 0xaa55 || string(p[paramMagic:paramMagic+4]) != "HdrS":
		return fmt.Errorf("boot_params at %#x must have the boot flag 0xaa55 at %#x and \"HdrS\" at %#x: without them the kernel takes what is there for garbage", BootParams, paramBootFlag, paramMagic)
	case p[paramE820Count] == 0:
		return errors.New("the E820 map is empty (its length is at 0x1e8): a kernel that knows of no memory cannot go on")
	}
	var ram uint64
	for i := range int(p[paramE820Count]) {
		e := p[paramE820+20*i:]
		if le.Uint32(e[16:]) == 1 {
			ram += le.Uint64(e[8:])
		}
	}
	if ram < linuxRAM*9/10 || ram > linuxRAM {
		return fmt.Errorf("the E820 map has %d KiB of RAM (type 1), and the machine has %d KiB", ram>>10, linuxRAM>>10)
	}
	line, err := v.Memory().Bytes(memory.Addr(le.Uint32(p[paramCmdLine:])), uint64(len(commandLine)+1))
	if err != nil || string(line) != commandLine+"\x00" {
		return fmt.Errorf("cmd_line_ptr (at %#x) must point to the command line %q with a zero behind it, and points to %q (%v)", paramCmdLine, commandLine, line, err)
	}
	return nil
}

func checkBoot(v VMM) error {
	entry, err := withLinux(v)
	if err != nil {
		return err
	}
	w := &limited{bytes: 1}
	v.Serial(w)
	err = v.Boot(entry)
	if w.b.Len() == 0 {
		return fmt.Errorf("the kernel said nothing before Boot returned: %v", err)
	}
	return ends(err, "Boot, when the console's writer fails,")
}
