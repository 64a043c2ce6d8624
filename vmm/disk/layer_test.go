package disk

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/virtio/blk"
	"github.com/vitrine-vmm/vitrine/devices/virtio/blk/blktest"
)

// openLayer opens a disk over a file, or one that keeps what the file had.
func openLayer(t *testing.T, path string, over, before *Layer) blk.Backend {
	t.Helper()
	b, err := Open(Options{Path: path, Over: over, Before: before, Engine: EngineInline})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func layerFile(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func noise(n int) []byte {
	b, r := make([]byte, n), rand.New(rand.NewPCG(1, uint64(n)))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// A disk over a file keeps a back end's promises, and the file is as it was.
func TestDiskOverAFile(t *testing.T) {
	var path string
	blktest.TestBackend(t, func(t *testing.T, size int64) blk.Backend {
		path = layerFile(t, make([]byte, size))
		t.Cleanup(func() {
			if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, make([]byte, size)) {
				t.Errorf("the file changed, %v", err)
			}
		})
		return openLayer(t, path, NewLayer(), nil)
	})
	blktest.TestBackend(t, func(t *testing.T, size int64) blk.Backend {
		return openLayer(t, layerFile(t, make([]byte, size)), nil, NewLayer())
	})
}

// exercise writes, discards and zeroes here and there: whole blocks and parts,
// and the disk's end, which lies inside a block.
func exercise(t *testing.T, b blk.Backend, seed uint64) {
	t.Helper()
	r := rand.New(rand.NewPCG(2, seed))
	sectors := b.Info().Size / blk.SectorSize
	for i := range 200 {
		off, n := r.Int64N(sectors), r.Int64N(24)+1
		n = min(n, sectors-off) * blk.SectorSize
		q := &blk.Request{Offset: off * blk.SectorSize}
		switch {
		case i%5 == 3 && b.Info().Discard:
			q.Op, q.Length = blk.OpDiscard, n
		case i%5 == 4:
			q.Op, q.Length, q.Unmap = blk.OpWriteZeroes, n, i%2 == 0
		default:
			data := noise(int(n))
			q.Op, q.Vec = blk.OpWrite, [][]byte{data[:n/2], data[n/2:]}
		}
		blktest.Do(t, b, q)
	}
}

func content(t *testing.T, b blk.Backend) []byte {
	t.Helper()
	p := make([]byte, b.Info().Size)
	blktest.Do(t, b, &blk.Request{Op: blk.OpRead, Vec: [][]byte{p[:777*3], p[777*3:]}})
	return p
}

// What a run wrote to a file and what the file had before make up each other:
// over the file as it is after the run, the layer of what it had is the disk as
// it was, and the same run over that ends with the file's new content. Both
// disks look the same to a guest.
func TestLayersTakeAFileBack(t *testing.T) {
	data := noise(1<<20 + 2560)
	path, before := layerFile(t, data), NewLayer()
	b := openLayer(t, path, nil, before)
	info := b.Info()
	exercise(t, b, 1)
	after := content(t, b)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, after) || bytes.Equal(now, data) {
		t.Fatalf("the file has not what was written, %v", err)
	}

	var kept bytes.Buffer
	if _, err := before.WriteTo(&kept); err != nil {
		t.Fatal(err)
	}
	again, err := ReadLayer(bytes.NewReader(kept.Bytes()))
	if err != nil || again.Len() != before.Len() || again.Len() == 0 {
		t.Fatalf("%d blocks of %d came back, %v", again.Len(), before.Len(), err)
	}
	untouched := again.Clone()
	b = openLayer(t, path, again, nil)
	if b.Info() != info {
		t.Errorf("the disk is %+v, and was %+v", b.Info(), info)
	}
	if !bytes.Equal(content(t, b), data) {
		t.Error("what the file had did not come back")
	}
	exercise(t, b, 1)
	if !bytes.Equal(content(t, b), after) {
		t.Error("the same writes over it make another disk")
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = openLayer(t, path, untouched, nil)
	defer b.Close()
	if !bytes.Equal(content(t, b), data) {
		t.Error("a clone has the other's writes")
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, after) {
		t.Errorf("the file changed, %v", err)
	}
}

func TestDifferenceMakesWhatWas(t *testing.T) {
	was, now := noise(3<<20+512), noise(3<<20+512)
	copy(now[5000:], was[5000:2<<20])
	clear(was[2<<20 : 2<<20+8192])
	l, err := Difference(bytes.NewReader(was), bytes.NewReader(now), int64(len(was)))
	if err != nil {
		t.Fatal(err)
	}
	b := openLayer(t, layerFile(t, now), l, nil)
	defer b.Close()
	if !bytes.Equal(content(t, b), was) {
		t.Error("it is not what was")
	}
}

func TestLayerMistakes(t *testing.T) {
	path := layerFile(t, make([]byte, 8192))
	for _, o := range []Options{
		{Path: path, Format: QCOW2, Over: NewLayer()},
		{Path: path, Engine: EngineIOURing, Before: NewLayer()},
		{Path: path, Over: NewLayer(), Before: NewLayer()},
	} {
		if b, err := Open(o); err == nil {
			b.Close()
			t.Errorf("%+v was opened", o)
		}
	}
	b, err := Open(Options{Path: path, ReadOnly: true, Over: NewLayer()})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	blktest.TestReadOnly(t, b)
}

// FuzzReadLayer: any bytes are a layer or an error, and what was read is written
// the same.
func FuzzReadLayer(f *testing.F) {
	for _, s := range []string{"", "\x00", "\x01", "\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "\x02\x04\x06", "\x03" + string(make([]byte, layerBlock))} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		l, err := ReadLayer(bytes.NewReader(in))
		if err != nil {
			return
		}
		var out bytes.Buffer
		if _, err := l.WriteTo(&out); err != nil {
			t.Fatal(err)
		}
		again, err := ReadLayer(bytes.NewReader(out.Bytes()))
		if err != nil || again.Len() != l.Len() {
			t.Fatalf("%d blocks became %d, %v", l.Len(), again.Len(), err)
		}
	})
}
