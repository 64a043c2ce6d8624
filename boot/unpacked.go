package boot

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
)

// ELF returns the kernel's ELF file: the file itself, or what the bzImage in it
// unpacks to.
func (img *Image) ELF() ([]byte, error) {
	b, err := img.elf()
	if err != nil {
		return nil, fmt.Errorf("boot: kernel %q: %w", img.Kernel.Name(), err)
	}
	return b, nil
}

func (img *Image) elf() ([]byte, error) {
	src, err := fileSource(img.Kernel, true)
	if err != nil {
		return nil, err
	}
	start := make([]byte, min(src.size, setupHeaderMaxEnd))
	if err := readAt(src, start, 0); err != nil {
		return nil, err
	}
	if isBzImage(start) {
		bz, err := parseBzImage(src, src.size)
		if err != nil {
			return nil, fmt.Errorf("damaged bzImage: %w", err)
		}
		elf, release, err := img.unpacked(bz, src)
		if err != nil {
			return nil, err
		}
		defer release()
		src = elf
	} else if !bytes.HasPrefix(start, []byte(elfMagic)) {
		return nil, fmt.Errorf("not an ELF or bzImage: %s", guessFormat(start))
	}
	b := make([]byte, src.size)
	return b, readAt(src, b, 0)
}

// unpacked returns the ELF in a bzImage's payload: from the cache, or unpacked
// now and, where possible, put there. release is to be called once the source
// is no longer needed.
func (img *Image) unpacked(bz *bzImage, src source) (elf source, release func(), err error) {
	if bz.payload == 0 {
		return source{}, nil, fmt.Errorf("boot protocol %s names no payload", protocolVersion(bz.version))
	}
	if img.CacheDir == "" {
		b := make([]byte, bz.payloadLen)
		if err := readAt(src, b, bz.payload); err != nil {
			return source{}, nil, fmt.Errorf("payload: %w", err)
		}
		if b, _, err = unpack(b); err != nil {
			return source{}, nil, err
		}
		return bytesSource(b), func() {}, nil
	}
	c := cache{dir: img.CacheDir, notef: img.notef}
	if f, size := c.known(img.Kernel); f != nil {
		return source{f, size, f}, func() { f.Close() }, nil
	}
	// The bytes that are hashed and the bytes that are unpacked must be the
	// same, even if the file changes meanwhile: it is read once.
	image := make([]byte, src.size)
	if err := readAt(src, image, 0); err != nil {
		return source{}, nil, err
	}
	if bz, err = parseBzImage(bytes.NewReader(image), src.size); err != nil {
		return source{}, nil, err
	}
	return c.unpack(img.Kernel, image, bz.payload, bz.payloadLen)
}

// unpack is unpacked for a kernel file that the cache does not know by its
// stat(2): the file's bytes may still be those of one that it has.
func (c *cache) unpack(kernel *os.File, image []byte, payload, n uint64) (elf source, release func(), err error) {
	key := sha256.Sum256(image)
	if f, size := c.verified(key); f != nil {
		c.remember(kernel, key, f)
		return source{f, size, f}, func() { f.Close() }, nil
	}
	b, _, err := unpack(image[payload : payload+n])
	if err != nil {
		return source{}, nil, err
	}
	f, err := c.add(key, b)
	if err != nil {
		c.notef("cache of unpacked kernels: %v", err)
		return bytesSource(b), func() {}, nil
	}
	c.remember(kernel, key, f)
	return source{f, uint64(len(b)), f}, func() { f.Close() }, nil
}
