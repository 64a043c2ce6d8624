package boot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// source is where the bytes of an image come from.
type source struct {
	io.ReaderAt
	size uint64
	file *os.File // to map pages of; nil: copy
}

func fileSource(f *os.File, mutable bool) (source, error) {
	info, err := f.Stat()
	if err != nil {
		return source{}, err
	}
	if !info.Mode().IsRegular() {
		return source{}, errors.New("not a regular file")
	}
	s := source{ReaderAt: f, size: uint64(info.Size())}
	if !mutable {
		s.file = f
	}
	return s, nil
}

func bytesSource(b []byte) source {
	return source{ReaderAt: bytes.NewReader(b), size: uint64(len(b))}
}

// place puts n bytes from offset at a.
func (s *source) place(g *memory.Guest, a memory.Addr, offset, n uint64) error {
	if s.file != nil {
		return g.MapFile(a, s.file, int64(offset), n)
	}
	b, err := g.WritableBytes(a, n)
	if err != nil {
		return err
	}
	return readAt(s, b, offset)
}

// open finds out what the kernel is, checks it, and decides where it goes.
func (img *Image) open(g *memory.Guest) (*kernel, error) {
	src, err := fileSource(img.Kernel, img.Mutable)
	if err != nil {
		return nil, err
	}
	start := make([]byte, min(src.size, setupHeaderMaxEnd))
	if err := readAt(src, start, 0); err != nil {
		return nil, err
	}
	var k *kernel
	switch {
	case bytes.HasPrefix(start, []byte(elfMagic)):
		k, err = elfKernel(src, img.Protocol)
	case isBzImage(start):
		k, err = img.openBzImage(src, lowRAM(g))
	default:
		err = fmt.Errorf("not an ELF or bzImage: %s", guessFormat(start))
	}
	if err != nil {
		return nil, err
	}
	if err := img.checkRAM(g, k); err != nil {
		k.release()
		return nil, err
	}
	return k, nil
}

// elfKernel is the kernel in an ELF executable.
func elfKernel(src source, want Protocol) (*kernel, error) {
	elf, err := parseELF(src, src.size)
	if err != nil {
		return nil, err
	}
	protocol, entry, err := elf.choose(want)
	if err != nil {
		return nil, err
	}
	k := &kernel{protocol: protocol, entry: entry, source: src, segments: elf.segments,
		cmdlineSize: commandLineSize, initrdAddrMax: initrdAddrMax, release: func() {}}
	k.low, k.end = elf.span()
	return k, nil
}

// openBzImage unpacks the kernel, because the host does so in milliseconds what
// takes the guest long where it is emulated. One that does not unpack starts by
// its own entry.
func (img *Image) openBzImage(src source, ramEnd uint64) (*kernel, error) {
	bz, err := parseBzImage(src, src.size)
	if err != nil {
		return nil, fmt.Errorf("damaged bzImage: %w", err)
	}
	k, err := img.unpackedKernel(bz, src)
	if err != nil {
		if img.Protocol == ProtocolPVH {
			return nil, err
		}
		own, ownErr := bz.ownKernel(src, ramEnd)
		if ownErr != nil {
			return nil, fmt.Errorf("%w; and it cannot start by itself: %w", err, ownErr)
		}
		img.notef("kernel %q: %v: it starts by its own entry", img.Kernel.Name(), err)
		k = own
	}
	k.header, k.cmdlineSize, k.initrdAddrMax = bz.header, bz.cmdlineSize, bz.initrdAddrMax
	return k, nil
}

func (img *Image) unpackedKernel(bz *bzImage, src source) (*kernel, error) {
	elf, release, err := img.unpacked(bz, src)
	if err != nil {
		return nil, err
	}
	k, err := elfKernel(elf, img.Protocol)
	if err != nil {
		release()
		return nil, fmt.Errorf("unpacked kernel: %w", err)
	}
	k.release = release
	return k, nil
}

// ownKernel is the protected-mode part of the bzImage as it is.
func (bz *bzImage) ownKernel(src source, ramEnd uint64) (*kernel, error) {
	addr, end, err := bz.place64(ramEnd)
	if err != nil {
		return nil, err
	}
	s := segment{offset: bz.protected, size: bz.protectedLen, addr: addr, memSize: end - addr}
	return &kernel{protocol: ProtocolLinux, entry: addr + entry64Offset, source: src, segments: []segment{s},
		low: addr, end: end, release: func() {}}, nil
}

// guessFormat says what a file that is no kernel may be.
func guessFormat(b []byte) string {
	switch {
	case len(b) == 0:
		return "the file is empty"
	case len(b) >= 0x3c && string(b[0x38:0x3c]) == "ARM\x64":
		return "an arm64 Image; give a kernel for x86-64"
	case bytes.HasPrefix(b, []byte("MZ")):
		return "an EFI program; give the kernel itself (arch/x86/boot/bzImage or vmlinux)"
	case bytes.HasPrefix(b, []byte("070701")) || bytes.HasPrefix(b, []byte("070702")):
		return "a cpio archive; that is an initrd"
	}
	for _, f := range formats {
		if bytes.HasPrefix(b, []byte(f.magic)) {
			return fmt.Sprintf("%s data; unpack it first, or give the bzImage", f.name)
		}
	}
	return fmt.Sprintf("it starts with % x; give arch/x86/boot/bzImage or vmlinux of a kernel for x86-64", b[:min(len(b), 8)])
}
