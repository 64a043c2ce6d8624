package vmm_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/rng"
	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
	"github.com/vitrine-vmm/vitrine/vmm/snapshot"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// computes is a guest that adds pseudo-random numbers up in 2 MiB of memory,
// rounds times, then writes a sum of it all to the serial port and turns the
// machine off: whatever a snapshot loses or doubles changes the sum.
func computes(rounds uint32) []byte {
	le := binary.LittleEndian
	var c []byte
	c = le.AppendUint64(append(c, 0x49, 0xb8), 0x5851f42d4c957f2d) // mov r8, …
	c = le.AppendUint64(append(c, 0x49, 0xb9), 0x14057b7ef767814f) // mov r9, …
	c = append(c, 0x48, 0xc7, 0xc7, 0, 0, 0x20, 0)                 // mov rdi, 0x200000
	c = le.AppendUint32(append(c, 0xb9), rounds)                   // mov ecx, rounds
	c = append(c, 0xb8, 1, 0, 0, 0)                                // mov eax, 1
	return append(append(c,
		0x49, 0x0f, 0xaf, 0xc0, // imul rax, r8
		0x4c, 0x01, 0xc8, // add rax, r9
		0x48, 0x89, 0xc3, // mov rbx, rax
		0x48, 0xc1, 0xeb, 0x2e, // shr rbx, 46
		0x48, 0x01, 0x04, 0xdf, // add [rdi+rbx*8], rax
		0xff, 0xc9, 0x75, 0xea, // dec ecx; jnz back
		0x31, 0xc0, // xor eax, eax
		0xb9, 0, 0, 4, 0, // mov ecx, 0x40000
		0x48, 0xc1, 0xc0, 0x05, // rol rax, 5
		0x48, 0x33, 0x44, 0xcf, 0xf8, // xor rax, [rdi+rcx*8-8]
		0xff, 0xc9, 0x75, 0xf3, // dec ecx; jnz back
		0xba, 0xf8, 0x03, 0, 0, // mov edx, 0x3f8
		0xb9, 8, 0, 0, 0, // mov ecx, 8
		0xee,                   // out dx, al
		0x48, 0xc1, 0xe8, 0x08, // shr rax, 8
		0xff, 0xc9, 0x75, 0xf7, // dec ecx; jnz back
	), powerOff...)
}

// rounds are enough for some hundred milliseconds of work.
func rounds(accel string) uint32 {
	if accel == "kvm" {
		return 150_000 // hosts that emulate guest kernels
	}
	return 4_000_000
}

func devices() []virtio.Device { return []virtio.Device{rng.New("rng", nil)} }

// running is a machine that runs in the background.
type running struct {
	*vmm.Machine
	out   bytes.Buffer // the end of it is the sum; read after ended
	ended chan error
}

func start(t testing.TB, m *vmm.Machine, r *running) *running {
	t.Helper()
	r.Machine, r.ended = m, make(chan error, 1)
	go func() { r.ended <- m.Run(context.Background()) }()
	return r
}

func startNew(t testing.TB, cfg vmm.Config) *running {
	t.Helper()
	r := new(running)
	cfg.Console.Out, cfg.Devices = &r.out, devices()
	return start(t, newMachine(t, cfg), r)
}

func startSaved(t testing.TB, dir string) *running {
	t.Helper()
	r := new(running)
	s, err := snapshot.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	m, err := vmm.Restore(vmm.Config{Console: vmm.Serial{Out: &r.out}, Devices: devices()}, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return start(t, m, r)
}

// result waits for the end and returns the sum.
func (r *running) result(t testing.TB) string {
	t.Helper()
	if err := <-r.ended; err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", r.out.Bytes())
}

func (r *running) stop() {
	r.Stop(nil)
	<-r.ended
}

func save(t testing.TB, m *vmm.Machine, dir string, o vmm.SaveOptions) vmm.Saved {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	saved, err := m.Save(ctx, dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return saved
}

// A guest that is saved and restored again and again, in whole snapshots and
// in a chain of differences, computes what it computes without.
func TestSavedGuestComputesTheSame(t *testing.T) {
	accelerators(t, func(t *testing.T, accel string) {
		cfg := vmm.Config{Kernel: tinyKernel(t, computes(rounds(accel))), Accel: accel}
		begun := time.Now()
		want := startNew(t, cfg).result(t)
		took := time.Since(begun)
		for _, chain := range []bool{false, true} {
			r, top, base := startNew(t, cfg), t.TempDir(), ""
			for i := range 4 {
				time.Sleep(time.Duration(rand.Int64N(int64(took/8) + 1)))
				dir := filepath.Join(top, fmt.Sprint(i))
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				_, err := r.Save(ctx, dir, vmm.SaveOptions{Base: base, Track: i%2 == 0})
				cancel()
				if err != nil {
					break // it was done before: the sum says whether all is well
				}
				if chain {
					base = dir
				}
				if i%2 == 1 || !chain {
					r.stop()
					r = startSaved(t, dir)
				}
			}
			if got := r.result(t); got != want {
				t.Fatalf("chain %v: the sum is %s, want %s", chain, got, want)
			}
		}
	})
}

// Both who was saved and each of two who are restored at the same time go on to
// the same end.
func TestOneSnapshotManyLives(t *testing.T) {
	accelerators(t, func(t *testing.T, accel string) {
		cfg := vmm.Config{Kernel: tinyKernel(t, computes(rounds(accel)/4)), Accel: accel}
		want := startNew(t, cfg).result(t)
		first := startNew(t, cfg)
		time.Sleep(5 * time.Millisecond)
		dir := filepath.Join(t.TempDir(), "s")
		save(t, first.Machine, dir, vmm.SaveOptions{})
		lives := []*running{first, startSaved(t, dir), startSaved(t, dir)}
		var wg sync.WaitGroup
		for i, r := range lives {
			wg.Go(func() {
				if err := <-r.ended; err != nil {
					t.Errorf("life %d: %v", i, err)
				} else if got := fmt.Sprintf("%x", r.out.Bytes()); got != want {
					t.Errorf("life %d: the sum is %s, want %s", i, got, want)
				}
			})
		}
		wg.Wait()
	})
}

var spin = []byte{0xeb, 0xfe}

// What a CPU holds beside its general registers comes back as it was: vector
// state above all, which no sum of a tiny guest shows.
func TestCPUStateComesBack(t *testing.T) {
	accelerators(t, func(t *testing.T, accel string) {
		r := startNew(t, vmm.Config{Kernel: tinyKernel(t, spin), Accel: accel})
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := r.Pause(ctx); err != nil {
			t.Fatal(err)
		}
		set := func(c vmm.VCPU) error { return setSample(c) }
		if err := r.OnCPU(0, set); err != nil {
			t.Fatal(err)
		}
		before := sample(t, r.Machine)
		dir := filepath.Join(t.TempDir(), "s")
		save(t, r.Machine, dir, vmm.SaveOptions{})
		if !r.Paused() {
			t.Error("a machine that was paused goes on after it was saved")
		}
		r.stop()
		r = startSaved(t, dir)
		defer r.stop()
		if err := r.Pause(ctx); err != nil {
			t.Fatal(err)
		}
		if after := sample(t, r.Machine); after != before {
			t.Errorf("before %s\nafter  %s", before, after)
		}
	})
}

// setSample fills registers that the spinning guest leaves alone. Bytes of the
// XSAVE area: XMM0…15 from 160 on, and the bitmap of what is in use at 512
// (SDM vol. 1, 13.4); YMM's upper halves where CPUID has them are at 576.
func setSample(c vmm.VCPU) error {
	xcr0, err := c.XCR0()
	if err != nil {
		return err
	}
	const sse, avx = 1 << 1, 1 << 2
	if ok := c.SetXCR0(xcr0|sse|avx|1) == nil; ok {
		xcr0 |= sse | avx | 1
	}
	area := make([]byte, 16<<10)
	for _, size := range []int{576, 4096, 16 << 10} {
		if err = c.XSave(area[:size]); err == nil {
			area = area[:size]
			break
		}
	}
	if err != nil {
		return err
	}
	for i := range 256 {
		area[160+i] = byte(i * 7)
	}
	bitmap := binary.LittleEndian.Uint64(area[512:]) | sse
	if xcr0&avx != 0 && len(area) >= 576+256 {
		for i := range 256 {
			area[576+i] = byte(i * 11)
		}
		bitmap |= avx
	}
	binary.LittleEndian.PutUint64(area[512:], bitmap)
	if err := c.SetXSave(area); err != nil {
		return err
	}
	return c.SetMSRs([]x86.MSR{{Index: x86.MSRLSTAR, Data: 0xffffffff81000000}, {Index: x86.MSRKernelGSBase, Data: 0x1234567}})
}

func sample(t *testing.T, m *vmm.Machine) (s string) {
	t.Helper()
	err := m.OnCPU(0, func(c vmm.VCPU) error {
		r, err := c.Regs()
		if err != nil {
			return err
		}
		sr, err := c.Sregs()
		if err != nil {
			return err
		}
		xcr0, err := c.XCR0()
		if err != nil {
			return err
		}
		msrs, err := c.MSRs(x86.MSRLSTAR, x86.MSRKernelGSBase, x86.MSRPAT, 0x2ff)
		if err != nil {
			return err
		}
		area := make([]byte, 4096)
		if err := c.XSave(area); err != nil {
			return err
		}
		s = fmt.Sprintf("%+v %+v %#x %v %x", r, sr, xcr0, msrs, area[160:1024])
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A differential snapshot has what has changed, and little more.
func TestDifferenceIsSmall(t *testing.T) {
	accelerators(t, func(t *testing.T, accel string) {
		r := startNew(t, vmm.Config{Accel: accel, Memory: 64 << 20, Kernel: tinyKernel(t, []byte{
			0xbf, 0, 0, 0x20, 0, // mov edi, 0x200000
			0xb9, 0, 0, 0x10, 0, // mov ecx, 0x100000
			0xb8, 1, 1, 1, 1, // mov eax, 0x01010101
			0xf3, 0xab, // rep stosd: 4 MiB
			0xff, 0x04, 0x25, 0, 0, 0x10, 0, // inc dword [0x100000]
			0xeb, 0xf7, // jmp back
		})})
		defer r.stop()
		top := t.TempDir()
		for begun, _ := r.Memory().LoadUint32(0x100000); ; {
			if v, _ := r.Memory().LoadUint32(0x100000); v != begun {
				break
			}
			time.Sleep(time.Millisecond)
		}
		whole := save(t, r.Machine, filepath.Join(top, "0"), vmm.SaveOptions{Track: true})
		if whole.Stored < 4<<20 || whole.Stored > 8<<20 {
			t.Errorf("a guest that wrote 4 MiB: %d bytes stored", whole.Stored)
		}
		time.Sleep(5 * time.Millisecond)
		part := save(t, r.Machine, filepath.Join(top, "1"), vmm.SaveOptions{Base: filepath.Join(top, "0")})
		if part.Stored == 0 || part.Stored > 1<<20 {
			t.Errorf("a guest that wrote one page: %d bytes stored", part.Stored)
		}
	})
}

func TestBaseMustBeKnown(t *testing.T) {
	cfg := vmm.Config{Kernel: tinyKernel(t, spin), Accel: acceltest.Of(t, acceltest.Soft)}
	a, b := startNew(t, cfg), startNew(t, cfg)
	defer a.stop()
	defer b.stop()
	top := t.TempDir()
	save(t, a.Machine, filepath.Join(top, "a"), vmm.SaveOptions{})
	for _, base := range []string{"a", "none"} {
		if _, err := b.Save(context.Background(), filepath.Join(top, "b"), vmm.SaveOptions{Base: filepath.Join(top, base)}); err == nil {
			t.Errorf("saved on the base %q of another machine", base)
		}
	}
	if err := a.Pause(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := a.Resume(); err != nil {
		t.Fatalf("a machine that was saved: %v", err)
	}
}

func TestRestoreRefuses(t *testing.T) {
	r := startNew(t, vmm.Config{Kernel: tinyKernel(t, spin), Accel: acceltest.Of(t, acceltest.Soft)})
	dir := filepath.Join(t.TempDir(), "s")
	save(t, r.Machine, dir, vmm.SaveOptions{})
	r.stop()
	for name, c := range map[string]struct {
		change func(*vmm.Config, *snapshot.State)
		want   string
	}{
		"features": {func(_ *vmm.Config, s *snapshot.State) {
			for i := range s.CPUID {
				if s.CPUID[i].Function == 7 && s.CPUID[i].Index == 0 {
					s.CPUID[i].EBX |= 1 << 30
				}
			}
		}, "avx512bw"},
		"no device":    {func(c *vmm.Config, _ *snapshot.State) { c.Devices = nil }, "the machine had 1"},
		"other device": {func(c *vmm.Config, _ *snapshot.State) { c.Devices = []virtio.Device{rng.New("x", nil)} }, "was rng"},
	} {
		s, err := snapshot.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		cfg := vmm.Config{Devices: devices()}
		c.change(&cfg, s.State)
		m, err := vmm.Restore(cfg, s)
		if err == nil {
			m.Close()
			t.Errorf("%s: restored", name)
		} else if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", name, err)
		}
		s.Close()
	}
}

func TestMissingFeaturesAreNamed(t *testing.T) {
	was := []x86.CPUIDEntry{{Function: 1, ECX: 1<<28 | 1<<25}, {Function: 7, Flags: 1, EBX: 1 << 16}}
	here := []x86.CPUIDEntry{{Function: 1, ECX: 1 << 25}, {Function: 7, Flags: 1, Index: 1, EBX: 1 << 16}}
	var missing *vmm.FeatureError
	if err := vmm.CheckCPUID(was, here); !errors.As(err, &missing) || strings.Join(missing.Missing, " ") != "avx avx512f" {
		t.Errorf("%v", err)
	}
	if err := vmm.CheckCPUID(here, here); err != nil {
		t.Error(err)
	}
}

// Processors of two makers keep the vector registers at different places.
func TestMovedStateIsRefused(t *testing.T) {
	table := func(offset uint32) []x86.CPUIDEntry {
		return []x86.CPUIDEntry{
			{Function: 0xd, Flags: 1, EAX: 0xe7},
			{Function: 0xd, Flags: 1, Index: 2, EAX: 256, EBX: 576},
			{Function: 0xd, Flags: 1, Index: 6, EAX: 512, EBX: offset},
		}
	}
	var missing *vmm.FeatureError
	if err := vmm.CheckCPUID(table(896), table(1152)); !errors.As(err, &missing) || strings.Join(missing.Missing, " ") != "xsave-component-6-at-896" {
		t.Errorf("%v", err)
	}
	if err := vmm.CheckCPUID(table(896), table(896)); err != nil {
		t.Error(err)
	}
}

// What a host shows its guests beyond what they are given counts too.
func TestSeenFeaturesAreChecked(t *testing.T) {
	accelerators(t, func(t *testing.T, accel string) {
		r := startNew(t, vmm.Config{Kernel: tinyKernel(t, spin), Accel: accel})
		dir := filepath.Join(t.TempDir(), "s")
		save(t, r.Machine, dir, vmm.SaveOptions{})
		r.stop()
		s, err := snapshot.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := vmm.CheckHost(s.State); err != nil {
			t.Error(err)
		}
		if s.State.Seen == nil {
			s.State.Seen = s.State.CPUID
		}
		s.State.Seen = append([]x86.CPUIDEntry(nil), s.State.Seen...)
		for i := range s.State.Seen {
			if e := &s.State.Seen[i]; e.Function == 7 && e.Index == 0 {
				e.ECX |= 1 << 29 // enqcmd, which no guest is given
			}
		}
		var missing *vmm.FeatureError
		if err := vmm.CheckHost(s.State); !errors.As(err, &missing) || len(missing.Missing) != 1 {
			t.Errorf("the host: %v", err)
		}
		m, err := vmm.Restore(vmm.Config{Devices: devices()}, s)
		if err == nil {
			err = m.Run(context.Background())
			_ = m.Close()
		}
		if !errors.As(err, &missing) || len(missing.Missing) != 1 {
			t.Errorf("restored: %v", err)
		}
	})
}

// Guests with ACPI learn that they are not the only ones to go on from here.
func TestGenerationDiffers(t *testing.T) {
	r := startNew(t, vmm.Config{Kernel: tinyKernel(t, spin), Accel: acceltest.Of(t, acceltest.Soft), ACPI: true, Generation: [16]byte{1}})
	dir := filepath.Join(t.TempDir(), "s")
	save(t, r.Machine, dir, vmm.SaveOptions{})
	r.stop()
	seen := map[[16]byte]bool{{1}: true}
	for range 2 {
		r := startSaved(t, dir)
		for {
			if _, runs := r.Timings().At(vmm.PhaseFirstRun); runs {
				break
			}
			time.Sleep(time.Millisecond)
		}
		var g [16]byte
		if err := r.Memory().ReadAt(g[:], 0xff000); err != nil {
			t.Fatal(err)
		}
		if seen[g] {
			t.Errorf("generation %x again", g)
		}
		seen[g] = true
		r.stop()
	}
}
