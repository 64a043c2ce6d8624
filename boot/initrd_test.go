package boot

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// cpio is an archive of one file, padded with zeros to blocks of 512 bytes as
// cpio(1) does it.
func cpio(name string, contents []byte) []byte {
	var b bytes.Buffer
	for _, f := range []struct {
		name     string
		contents []byte
	}{{name, contents}, {"TRAILER!!!", nil}} {
		fmt.Fprintf(&b, "070701%048X%08X%032X%08X%08X%s\x00", 0, len(f.contents), 0, len(f.name)+1, 0, f.name)
		b.Write(make([]byte, -b.Len()&3))
		b.Write(f.contents)
		b.Write(make([]byte, -b.Len()&3))
	}
	return append(b.Bytes(), make([]byte, -b.Len()&511)...)
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstandard(t testing.TB, b []byte) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	return z.EncodeAll(b, nil)
}

// The last archive is unpacked, those before it stay; what is not of that form
// is left to the kernel.
func TestUnpackInitrd(t *testing.T) {
	early := cpio("kernel/x86/microcode/GenuineIntel.bin", bytes.Repeat([]byte("early"), 100))
	root := cpio("init", bytes.Repeat([]byte("root"), 5000))
	gz, zst := gzipped(t, root), zstandard(t, root)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	damaged := bytes.Clone(gz)
	damaged[len(damaged)/2] ^= 0xff
	for _, c := range []struct {
		name    string
		initrd  []byte
		want    []byte // nil: an error that has
		problem string
	}{
		{"gzip", gz, root, ""},
		{"zstd", zst, root, ""},
		{"behind another archive", join(early, gz), join(early, root), ""},
		{"behind zeros to no multiple of 4", join(early, make([]byte, 5), zst), join(early, make([]byte, 8), root), ""},
		{"zeros behind it", join(early, gz, make([]byte, 100)), join(early, root), ""},
		{"two archives in one", gzipped(t, join(root, early)), join(root, early), ""},
		{"two packed ones", join(gz, gz), nil, "something follows"},
		{"an archive behind it", join(gz, root), nil, "something follows"},
		{"not packed", join(early, root), nil, "no packed archive"},
		{"packed, but no archive", gzipped(t, []byte("an ext2 file system")), nil, "no archive"},
		{"packed zeros", gzipped(t, make([]byte, 512)), nil, ""},
		{"damaged", damaged, nil, ""},
		{"cut off", gz[:len(gz)-20], nil, ""},
		{"an archive cut off", early[:300], nil, "cut off"},
		{"too large", gzipped(t, cpio("init", make([]byte, 1<<20))), nil, errTooLarge.Error()},
		{"another format", []byte("BZh91AY"), nil, "no packed archive"},
		{"empty", nil, nil, "no packed archive"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := unpackInitrd(c.initrd, 1<<20)
			switch {
			case c.want == nil && (err == nil || !strings.Contains(err.Error(), c.problem)):
				t.Errorf("%d bytes, error %v; want one about %q", len(got), err, c.problem)
			case c.want != nil && (err != nil || !bytes.Equal(trimZeros(got), trimZeros(c.want))):
				t.Errorf("%d bytes, error %v; want %d", len(got), err, len(c.want))
			}
		})
	}
}

func trimZeros(b []byte) []byte { return bytes.TrimRight(b, "\x00") }

// What xz(1) packs, which no library here does.
func TestUnpackInitrdXZ(t *testing.T) {
	if _, err := exec.LookPath("xz"); err != nil {
		t.Skip("xz is not installed")
	}
	root := cpio("init", bytes.Repeat([]byte("root"), 5000))
	cmd := exec.Command("xz", "--check=crc32", "--stdout")
	cmd.Stdin = bytes.NewReader(root)
	packed, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := unpackInitrd(packed, 1<<20); err != nil || !bytes.Equal(got, root) {
		t.Errorf("%d bytes, error %v; want %d", len(got), err, len(root))
	}
}

// The guest gets what a packed initrd unpacks to where that was asked for and
// where its memory allows; the packed one otherwise.
func TestInitrdInMemory(t *testing.T) {
	root := cpio("init", make([]byte, 10<<20))
	packed := gzipped(t, root)
	for _, c := range []struct {
		name   string
		unpack bool
		memory uint64
		want   []byte
	}{
		{"unpacked", true, 64 << 20, root},
		{"not asked for", false, 64 << 20, packed},
		{"too large", true, 32 << 20, packed},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := guest(t, c.memory)
			img := Image{Kernel: file(t, "vmlinux", buildELF(tinyKernel())), Initrd: file(t, "initrd", packed), UnpackInitrd: c.unpack}
			if _, err := Load(g, img); err != nil {
				t.Fatal(err)
			}
			page := at(t, g, uint64(paramsAddr), memory.PageSize)
			addr, size := u32(page, hdrRamdiskImage), u32(page, hdrRamdiskSize)
			if !bytes.Equal(at(t, g, addr, size), c.want) {
				t.Errorf("%d bytes at %#x, want %d", size, addr, len(c.want))
			}
		})
	}
}

func FuzzUnpackInitrd(f *testing.F) {
	f.Add(cpio("init", []byte("x")))
	f.Add(gzipped(f, cpio("init", []byte("x"))))
	f.Add(zstandard(f, cpio("init", []byte("x"))))
	f.Add([]byte("\x1f\x8b\x08"))
	f.Add([]byte("\x28\xb5\x2f\xfd\x04"))
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 1 << 20
		if out, err := unpackInitrd(b, limit); err == nil && len(out) > limit {
			t.Errorf("%d bytes, at most %d are allowed", len(out), limit)
		}
	})
}
