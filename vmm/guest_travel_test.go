package vmm_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/blk"
	"github.com/vitrine-vmm/vitrine/devices/virtio/blk/blktest"
	"github.com/vitrine-vmm/vitrine/devices/virtio/rng"
	guestimages "github.com/vitrine-vmm/vitrine/guest-images"
	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/disk"
	"github.com/vitrine-vmm/vitrine/vmm/snapshot"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// traveller is a deterministic embedded guest that runs a command and can go
// back.
func traveller(t *testing.T, every uint64, cpus int, change func(*vmm.Config)) *vmm.Travel {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	return travels(t, ctx, vmm.TravelOptions{Every: every, Dir: t.TempDir(), Make: func(s *snapshot.Snapshot) (*vmm.Machine, func(), error) {
		cfg := vmm.Config{Deterministic: true, CPUs: cpus, Memory: 64 << 20,
			CommandLine: guestimages.Quiet + " " + guestimages.ParamConsole + "ttyS0 " + guestimages.ParamExit + "poweroff",
			Console:     vmm.Serial{In: strings.NewReader("echo $((6*7)); cat /proc/interrupts; sleep 1; exit\n")},
			Devices:     []virtio.Device{rng.New("rng", zeros{})}}
		if change != nil {
			change(&cfg)
		}
		cfg = embeddedGuest(t, cfg)
		if s != nil {
			m, err := vmm.Restore(cfg, s)
			return m, func() {}, err
		}
		m, err := vmm.New(cfg)
		return m, func() {}, err
	}})
}

// travels begins a journey that ends with the test.
func travels(t *testing.T, ctx context.Context, o vmm.TravelOptions) *vmm.Travel {
	t.Helper()
	tr, err := vmm.NewTravel(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	return tr
}

// footprint is everything that a guest can see of itself: its memory, byte for
// byte, and its CPUs.
func footprint(t *testing.T, tr *vmm.Travel, cpus int) string {
	t.Helper()
	h := sha256.New()
	for _, r := range tr.Machine().Memory().Regions() {
		h.Write(r.Bytes)
	}
	s := fmt.Sprintf("%+v memory %x", tr.At(), h.Sum(nil))
	for id := range cpus {
		err := tr.Machine().OnCPU(id, func(v vmm.VCPU) error {
			type state interface {
				vmm.VCPU
				LAPIC() (x86.LAPIC, error)
				MPState() (x86.MPState, error)
				File(*x86.File)
			}
			c, ok := v.(state)
			if !ok {
				t.Fatalf("CPU %d is a %T", id, v)
			}
			var f x86.File
			c.File(&f)
			sregs, err := c.Sregs()
			if err != nil {
				return err
			}
			lapic, err := c.LAPIC()
			if err != nil {
				return err
			}
			mp, err := c.MPState()
			b, _ := json.Marshal([]any{f, sregs, lapic})
			s += fmt.Sprintf("\ncpu %d rip %#x tsc-state %x mp %v", id, f[x86.RegRIP], sha256.Sum256(b), mp)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// TestGuestTravelsInTime: a machine that went to its end and back, in any order,
// by snapshots, is at each place what one is that went there straight.
func TestGuestTravelsInTime(t *testing.T) {
	for _, c := range []struct {
		name   string
		cpus   int
		change func(*vmm.Config)
	}{
		{"one CPU", 1, nil},
		{"two CPUs", 2, nil},
		{"PCI and ACPI", 1, func(c *vmm.Config) { c.Transport = vmm.TransportPCI }},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := context.Background()
			tr := traveller(t, 2<<20, c.cpus, c.change)
			err := tr.GoTo(ctx, math.MaxUint64)
			if err == nil || !strings.Contains(err.Error(), "power-off") {
				t.Fatalf("the guest ended with %v", err)
			}
			end := tr.At()
			t.Logf("the guest ended after %d instructions, %v of its time", end.Executed, end.Time)
			r := rand.New(rand.NewPCG(1, uint64(c.cpus)))
			places := []uint64{end.Executed, end.Executed - 1, 5<<20 + 1, 4 << 20, 1, 0, end.Executed / 2, r.Uint64N(end.Executed)}
			want := make(map[uint64]string)
			straight := traveller(t, 1<<60, c.cpus, c.change)
			for _, n := range []uint64{0, 1, 4 << 20, 5<<20 + 1, end.Executed / 2, places[7], end.Executed - 1, end.Executed} {
				if n < straight.At().Executed {
					straight = traveller(t, 1<<60, c.cpus, c.change)
				}
				if err := straight.GoTo(ctx, n); err != nil {
					t.Fatal(n, err)
				}
				want[n] = footprint(t, straight, c.cpus)
			}
			for _, n := range places {
				if err := tr.GoTo(ctx, n); err != nil {
					t.Fatal(n, err)
				}
				if got := footprint(t, tr, c.cpus); got != want[n] {
					t.Errorf("before instruction %d: there and back it is\n%s\nand straight\n%s", n, got, want[n])
				}
			}
		})
	}
}

// diskTraveller is a deterministic guest that writes to a disk, which lies in a
// layer over a file.
type diskTraveller struct {
	*vmm.Travel
	t    *testing.T
	disk blk.Backend // of the machine that there is
}

func newDiskTraveller(t *testing.T, file string, every uint64) *diskTraveller {
	t.Helper()
	d := &diskTraveller{t: t}
	var layer *disk.Layer
	const name = "disk.layer"
	d.Travel = travels(t, context.Background(), vmm.TravelOptions{Every: every, Dir: t.TempDir(),
		Save: func() vmm.SaveOptions {
			return vmm.SaveOptions{Files: func(w *snapshot.Writer) error {
				f, err := os.Create(w.Path(name))
				if err != nil {
					return err
				}
				_, err = layer.WriteTo(f)
				return errors.Join(err, f.Close())
			}}
		},
		Make: func(s *snapshot.Snapshot) (*vmm.Machine, func(), error) {
			layer = disk.NewLayer()
			if s != nil {
				b, err := os.ReadFile(filepath.Join(s.Path, name))
				if err == nil {
					layer, err = disk.ReadLayer(bytes.NewReader(b))
				}
				if err != nil {
					return nil, nil, err
				}
			}
			b, err := disk.Open(disk.Options{Path: file, Over: layer, Engine: disk.EngineInline})
			if err != nil {
				return nil, nil, err
			}
			dev, err := blk.New(b, blk.Options{})
			if err != nil {
				return nil, nil, err
			}
			d.disk = b
			cfg := embeddedGuest(t, vmm.Config{Deterministic: true, Memory: 64 << 20, Devices: []virtio.Device{dev},
				CommandLine: guestimages.Quiet + " " + guestimages.ParamConsole + "ttyS0 " + guestimages.ParamExit + "poweroff",
				Console:     vmm.Serial{In: strings.NewReader("echo new | dd of=/dev/vda bs=512 seek=9 conv=notrunc; sync; shasum -a 256 /dev/vda; exit\n")}})
			var m *vmm.Machine
			if s != nil {
				m, err = vmm.Restore(cfg, s)
			} else {
				m, err = vmm.New(cfg)
			}
			return m, func() { _ = b.Close() }, err
		}})
	return d
}

// at goes to an instruction and returns the sector that the guest writes to,
// and everything that there is.
func (d *diskTraveller) at(executed uint64) (sector, all string) {
	d.t.Helper()
	if err := d.GoTo(context.Background(), executed); err != nil {
		d.t.Fatal(executed, err)
	}
	b := make([]byte, d.disk.Info().Size)
	blktest.Do(d.t, d.disk, &blk.Request{Op: blk.OpRead, Vec: [][]byte{b}})
	return string(b[9*512 : 10*512]), footprint(d.t, d.Travel, 1) + " disk " + sum(b)
}

// TestGuestDiskTravelsInTime: before the instruction at which the guest writes
// to its disk the sector is old, at the next it is new, whence ever one comes,
// and all is as in a machine that went there straight. The file never changes.
func TestGuestDiskTravelsInTime(t *testing.T) {
	file, content := rawFile(t, 1<<20)
	d := newDiskTraveller(t, file, 2<<20)
	old := string(content[9*512 : 10*512])
	if err := d.GoTo(context.Background(), math.MaxUint64); !errors.Is(err, vmm.ErrTravelEnd) {
		t.Fatal(err)
	}
	end := d.At().Executed
	written := sort.Search(int(end), func(n int) bool {
		sector, _ := d.at(uint64(n))
		return sector != old
	})
	places := []uint64{0, uint64(written - 1), uint64(written), end}
	straight, want := newDiskTraveller(t, file, 1<<60), make(map[uint64]string)
	for _, n := range places {
		_, want[n] = straight.at(n)
	}
	for _, n := range []uint64{places[2], places[1], places[3], places[0], places[2], places[1]} {
		sector, all := d.at(n)
		if wrote := strings.HasPrefix(sector, "new\n") && sector[4:] == old[4:]; wrote != (n >= uint64(written)) || !wrote && sector != old {
			t.Errorf("before instruction %d, and it is written at %d, the sector has %.20q", n, written, sector)
		}
		if all != want[n] {
			t.Errorf("before instruction %d: there and back it is\n%s\nand straight\n%s", n, all, want[n])
		}
	}
	if b, err := os.ReadFile(file); err != nil || !bytes.Equal(b, content) {
		t.Errorf("the file changed, %v", err)
	}
}
