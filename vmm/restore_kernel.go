package vmm

import (
	"bytes"
	"debug/elf"
	"os"

	"github.com/vitrine-vmm/vitrine/boot"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// kernelFile is the file of the guest's kernel. That of a restored machine was
// read long ago and perhaps elsewhere: the file in its configuration counts if
// the guest's memory shows that it is the same kernel.
func (m *Machine) kernelFile() string {
	if m.kept.kernel == "" {
		return m.cfg.Kernel
	}
	if !m.hasKernel(m.kept.kernel) {
		return restored
	}
	return m.kept.kernel
}

// hasKernel says whether the banner of the kernel in a file, which has its
// version and the time when it was built, is where the file puts it. A kernel
// that has moved itself (KASLR) is not found: its functions are not where the
// file says either.
func (m *Machine) hasKernel(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	image, err := (&boot.Image{Kernel: f, CacheDir: m.cfg.CacheDir}).ELF()
	if err != nil {
		return false
	}
	banner, at, ok := linuxBanner(image)
	if !ok {
		return false
	}
	there := make([]byte, len(banner))
	return m.mem.ReadAt(there, at) == nil && bytes.Equal(there, banner)
}

// linuxBanner is the line that a kernel begins its log with (linux_banner in
// init/version-timestamp.c), and the physical address at which it is loaded.
func linuxBanner(image []byte) (banner []byte, at memory.Addr, ok bool) {
	f, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return nil, 0, false
	}
	begin := bytes.Index(image, []byte("Linux version "))
	if begin < 0 {
		return nil, 0, false
	}
	n := bytes.IndexByte(image[begin:], '\n')
	for _, p := range f.Progs {
		off := uint64(begin) - p.Off
		if p.Type == elf.PT_LOAD && n > 0 && uint64(begin) >= p.Off && off < p.Filesz && uint64(n) < p.Filesz-off {
			return image[begin : begin+n], memory.Addr(p.Paddr + off), true
		}
	}
	return nil, 0, false
}
