package ninep_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/hugelgupf/p9/p9"

	"github.com/vitrine-vmm/vitrine/devices/virtio/virtiotest"
	"github.com/vitrine-vmm/vitrine/vmm/share"
)

const (
	benchFile  = 8 << 20
	benchChunk = 128 << 10 // what Linux asks for at once by default, about
)

func benchDir(b *testing.B) string {
	dir := b.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), make([]byte, benchFile), 0o600); err != nil {
		b.Fatal(err)
	}
	return dir
}

// BenchmarkPlainRead is what a program on the host gets.
func BenchmarkPlainRead(b *testing.B) {
	f, err := os.Open(filepath.Join(benchDir(b), "f"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, benchChunk)
	b.SetBytes(benchChunk)
	b.ResetTimer()
	for i := range b.N {
		if _, err := f.ReadAt(p, int64(i)*benchChunk%benchFile); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRead reads the same file through the device, with a few requests
// under way as Linux has them.
func BenchmarkRead(b *testing.B) {
	s, err := share.Open(benchDir(b), true)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	dev := newDevice(b, s)
	d := virtiotest.New(b, dev, virtiotest.Config{})
	d.Start(^uint64(0))
	r := d.Rings[0]
	do := func(m []byte) []byte { return r.Do(b, [][]byte{m}, 200) }
	do(message(100, 0xffff, append([]byte{0, 0, 4, 0, 8, 0}, "9P2000.L"...)...))
	do(message(104, 1, 9, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0))
	do(message(110, 1, 9, 0, 0, 0, 8, 0, 0, 0, 1, 0, 1, 0, 'f'))
	if got := do(message(12, 1, 8, 0, 0, 0, byte(p9.ReadOnly), 0, 0, 0)); got[4] != 13 {
		b.Fatalf("answer to Tlopen: %x", got)
	}
	const depth = 4
	read := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint64([]byte{8, 0, 0, 0}, 0), benchChunk)
	next := 0
	submit := func(q *virtiotest.Request) {
		binary.LittleEndian.PutUint64(q.Out(0)[11:], uint64(next*benchChunk%benchFile))
		next++
		r.Submit(q)
	}
	b.SetBytes(benchChunk)
	b.ResetTimer()
	for i := range depth {
		submit(r.Prepare([][]byte{message(116, uint16(i), read...)}, 11, benchChunk))
	}
	r.Kick()
	for range b.N {
		q := r.Wait(b)
		if q.Written != 11+benchChunk {
			b.Fatalf("the answer has %d bytes", q.Written)
		}
		submit(q)
		r.Kick()
	}
}
