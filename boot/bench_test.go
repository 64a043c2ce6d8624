package boot

import (
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/boot/acpi"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// BenchmarkLoad is the boot loader's part of a start: a kernel of 15 MiB with
// an initrd of 8 MiB and all tables, into the memory of a new guest.
func BenchmarkLoad(b *testing.B) {
	kernel := tinyKernel()
	kernel.segments[0].data = make([]byte, 15<<20)
	kernel.segments[1].addr = 0x200_0000
	elf, initrd := buildELF(kernel), make([]byte, 8<<20)
	bz := buildBz(testBz{payload: elf})
	for _, c := range []struct {
		name  string
		image []byte
		setUp func(img *Image)
	}{
		{"ELF mapped", elf, func(*Image) {}},
		{"ELF copied", elf, func(img *Image) { img.Mutable = true }},
		{"bzImage cached", bz, func(img *Image) {
			img.CacheDir = b.TempDir()
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			img := Image{Kernel: file(b, "kernel", c.image), Initrd: file(b, "initrd", initrd), CPUs: 4,
				ACPI: &acpi.Config{CPUs: 4}, CommandLine: "console=hvc0"}
			c.setUp(&img)
			if img.CacheDir != "" {
				time.Sleep(settled) // so that the cache takes stat(2)'s word
				loadOnce(b, img)
			}
			for b.Loop() {
				loadOnce(b, img)
			}
		})
	}
}

func loadOnce(b *testing.B, img Image) {
	g, err := memory.New(128 << 20)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := Load(g, img); err != nil {
		b.Fatal(err)
	}
	if err := g.Close(); err != nil {
		b.Fatal(err)
	}
}
