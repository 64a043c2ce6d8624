package lab

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"strings"

	"github.com/vitrine-vmm/vitrine/docs/labs"
	guestimages "github.com/vitrine-vmm/vitrine/guest-images"
)

// Lab 8's folder, and where its machines have what a loader is given.
const (
	bootFolder  = "08-boot-protocol"
	bzImageAt   = 0x4000000
	ramdiskAt   = 0x6000000
	linuxMemory = 128 << 20
)

// Offsets in a bzImage and in boot_params (Linux Documentation/arch/x86/boot.rst,
// "The Real-Mode Kernel Header"; zero-page.rst).
const (
	offE820Entries  = 0x1e8
	offSentinel     = 0x1ef
	offSetupSects   = 0x1f1
	offSyssize      = 0x1f4
	offVidMode      = 0x1fa
	offJump         = 0x200
	offMagic        = 0x202
	offVersion      = 0x206
	offTypeOfLoader = 0x210
	offLoadflags    = 0x211
	offCode32Start  = 0x214
	offRamdiskImage = 0x218
	offRamdiskSize  = 0x21c
	offHeapEnd      = 0x224
	offCmdLine      = 0x228
	offSetupData    = 0x250
	offE820Table    = 0x2d0
	setupSector     = 512
)

// image is a bzImage, and what is where in it.
type image struct {
	file      []byte
	header    int // its end
	protected []byte
}

// newImage makes a bzImage of lab 8's setup header, so many setup sectors, and a
// protected-mode part.
func newImage(setupSects int, protected []byte) (image, error) {
	kernel, err := labs.Files.ReadFile(bootFolder + "/kernel.bin")
	if err != nil {
		return image{}, err
	}
	for len(protected)%16 != 0 { // syssize counts pieces of 16 bytes
		protected = append(protected, 0)
	}
	// What a loader must not take for the kernel are breakpoints.
	file := bytes.Repeat([]byte{0xcc}, (setupSects+1)*setupSector)
	copy(file, kernel[:2*setupSector])
	file[offSetupSects] = uint8(setupSects)
	binary.LittleEndian.PutUint32(file[offSyssize:], uint32(len(protected)/16))
	return image{append(file, protected...), offMagic + int(file[offJump+1]), protected}, nil
}

// smallImage is a bzImage whose kernel says its command line and halts.
func smallImage(setupSects int) (image, error) {
	kernel, err := labs.Files.ReadFile(bootFolder + "/kernel.bin")
	if err != nil {
		return image{}, err
	}
	return newImage(setupSects, bytes.Clone(kernel[2*setupSector:]))
}

// linuxImage is a bzImage of the embedded Linux.
func linuxImage(cacheDir string) (image, error) {
	path, err := guestimages.Path(cacheDir, guestimages.KernelLean)
	if err != nil {
		return image{}, err
	}
	f, err := elf.Open(path)
	if err != nil {
		return image{}, err
	}
	defer f.Close()
	part, err := labs.Files.ReadFile(bootFolder + "/linux.bin")
	if err != nil {
		return image{}, err
	}
	part = bytes.Clone(part)
	const entryAt, kernelAt, most = 8, 0x1000000, 32 << 20 // as linux.s has it
	binary.LittleEndian.PutUint32(part[entryAt:], uint32(f.Entry))
	head := uint64(len(part))
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD || p.Filesz == 0 {
			continue
		}
		if p.Paddr < kernelAt || p.Paddr-kernelAt > most || p.Filesz > most {
			return image{}, fmt.Errorf("%s: a segment at %#x of %d bytes", path, p.Paddr, p.Filesz)
		}
		at := head + p.Paddr - kernelAt
		if end := at + p.Filesz; end > uint64(len(part)) {
			part = append(part, make([]byte, end-uint64(len(part)))...)
		}
		if _, err := p.ReadAt(part[at:][:p.Filesz], 0); err != nil {
			return image{}, fmt.Errorf("%s: %w", path, err)
		}
	}
	return newImage(3, part)
}

// loaderStart is a machine with a bzImage in memory as a loader finds it in its
// file, and an initial RAM disk.
func loaderStart(img image, ramdisk []byte, memory uint64) Start {
	return Start{AX: bzImageAt, BX: ramdiskAt, CX: uint64(len(ramdisk)), DX: memory, Flat: true, Memory: memory,
		Place: []Blob{{bzImageAt, img.file}, {ramdiskAt, ramdisk}}}
}

// headerStart is a machine for the demonstration, which looks at a header.
func headerStart() Start {
	img, err := smallImage(1)
	if err != nil {
		return Start{} // cannot be: the file is embedded
	}
	return loaderStart(img, nil, guestMost)
}

// guestMost is the memory of the machines with small kernels.
const guestMost = 112 << 20

// greeting is what lab 8's /init says, before the end of its line.
const greeting = "user space: loaded by hand"

// linuxStart has the embedded Linux to be loaded.
func linuxStart(ctx context.Context, o Options) (s Start, err error) {
	dir := o.CacheDir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "vitrine-lab"); err != nil {
			return s, err
		}
		defer os.RemoveAll(dir)
	}
	img, err := linuxImage(dir)
	if err != nil {
		return s, err
	}
	program, err := labs.Files.ReadFile(bootFolder + "/init.bin")
	if err != nil {
		return s, err
	}
	s = loaderStart(img, ramdisk(program), linuxMemory)
	s.Until = greeting
	return s, ctx.Err()
}

// ramdisk is an initial RAM disk (Documentation/driver-api/early-userspace/
// buffer-format.rst) with /init and the console that it speaks to.
func ramdisk(code []byte) []byte {
	const directory, device, executable = 0o040755, 0o020600, 0o100755
	var b bytes.Buffer
	file := func(name string, mode, major, minor int, data []byte) {
		// inode, mode, uid, gid, links, mtime, size, device (2), of what device (2), name's length, checksum
		fmt.Fprintf(&b, "070701")
		for _, v := range []int{b.Len(), mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name) + 1, 0} {
			fmt.Fprintf(&b, "%08x", v)
		}
		b.WriteString(name + "\x00")
		b.WriteString(strings.Repeat("\x00", -b.Len()&3))
		b.Write(data)
		b.WriteString(strings.Repeat("\x00", -b.Len()&3))
	}
	file("dev", directory, 0, 0, nil)
	file("dev/console", device, 5, 1, nil)
	file("init", executable, 0, 0, elfProgram(code, 0x400000))
	file("TRAILER!!!", 0, 0, 0, nil)
	return b.Bytes()
}
