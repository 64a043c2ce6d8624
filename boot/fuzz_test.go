package boot

import (
	"bytes"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// fuzzGuest is small, and the same for all runs of a target: what an earlier
// run left there does not matter to a loader.
func fuzzGuest(f *testing.F) *memory.Guest {
	f.Helper()
	g, err := memory.New(32 << 20)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = g.Close() })
	return g
}

// loadBytes is Load for a kernel that is not in a file.
func loadBytes(g *memory.Guest, k *kernel, img *Image) error {
	if err := img.checkRAM(g, k); err != nil {
		return err
	}
	_, err := img.load(g, k)
	return err
}

func FuzzELF(f *testing.F) {
	f.Add(buildELF(tightKernel()), uint8(ProtocolAuto))
	bits32 := tightKernel()
	bits32.bits = 32
	f.Add(buildELF(bits32), uint8(ProtocolPVH))
	f.Add([]byte(elfMagic), uint8(ProtocolLinux))
	g := fuzzGuest(f)
	f.Fuzz(func(t *testing.T, b []byte, want uint8) {
		k, err := elfKernel(bytesSource(b), Protocol(want%3))
		if err != nil {
			return
		}
		// The entry is inside what was loaded, whatever the headers say.
		if err := loadBytes(g, k, &Image{}); err == nil && !inRAM(g, k.entry, k.entry+1) {
			t.Errorf("entry %#x is outside memory", k.entry)
		}
	})
}

func FuzzPVHNote(f *testing.F) {
	f.Add(pvhNote(0x100_0000), uint64(4))
	f.Add(note("Xen\x00", noteXenPhys32Entry, make([]byte, 8), 8), uint64(8))
	f.Add([]byte{4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 18, 0, 0, 0, 'X', 'e', 'n', 0}, uint64(4))
	f.Fuzz(func(t *testing.T, b []byte, align uint64) {
		if a, err := findPVHNote(b, align); err == nil && a>>32 != 0 {
			t.Errorf("entry %#x", a)
		}
	})
}

// FuzzBzImage varies the setup header, the length of the protected-mode part
// and the payload behind it.
func FuzzBzImage(f *testing.F) {
	for _, payload := range [][]byte{packed(f, "lz4"), buildELF(tightKernel()), []byte("?")} {
		image := buildBz(testBz{sects: 1, protected: make([]byte, 16), payload: payload})
		f.Add(image[setupHeader:setupHeaderEnd], uint16(16), payload)
		f.Add(image[setupHeader:setupHeaderEnd], uint16(2*entry64Offset), payload)
	}
	g := fuzzGuest(f)
	f.Fuzz(func(t *testing.T, header []byte, protected uint16, payload []byte) {
		b := buildBz(testBz{sects: 1, protected: make([]byte, protected), payload: payload})
		copy(b[setupHeader:setupHeaderEnd], header)
		src := bytesSource(b)
		bz, err := parseBzImage(src, src.size)
		if err != nil {
			return
		}
		img := Image{}
		k, err := img.unpackedKernel(bz, src)
		if err != nil {
			if k, err = bz.ownKernel(src, lowRAM(g)); err != nil {
				return
			}
		}
		k.header, k.cmdlineSize, k.initrdAddrMax = bz.header, bz.cmdlineSize, bz.initrdAddrMax
		if err := loadBytes(g, k, &img); err == nil && !inRAM(g, k.entry, k.entry+1) {
			t.Errorf("entry %#x is outside memory", k.entry)
		}
	})
}

// FuzzPayload is for the decoders of our own and the glue around the others.
func FuzzPayload(f *testing.F) {
	for _, format := range formatNames {
		f.Add(packed(f, format))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<16 {
			return
		}
		if n := len(b); n > 4 { // do not spend the time on sizes that are bounded anyway
			b[n-1], b[n-2] = 0, b[n-2]&0xf
		}
		if elf, _, err := unpack(b); err == nil && !bytes.HasPrefix(elf, []byte(elfMagic)) {
			t.Error("unpacked to no ELF")
		}
	})
}
