package vmm_test

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/rng"
	"github.com/vitrine-vmm/vitrine/vmm"
)

// A notification costs an exit with NotifyExit, and none with an ioeventfd.
func TestGuestNotificationsAreExitsOrNot(t *testing.T) {
	const times = 50
	code := []byte{0xbf, 0, 0, 0, 0xd0, 0xb9, times, 0, 0, 0, 0x31, 0xc0} // mov edi, 0xd0000000; mov ecx, times; xor eax, eax
	code = append(code, 0x89, 0x87)                                       // n: mov [rdi+QueueNotify], eax
	code = binary.LittleEndian.AppendUint32(code, virtio.NotifyOffset)
	code = append(code, 0xff, 0xc9, 0x75, 0xf6) // dec ecx; jnz n
	code = append(code, powerOff...)
	accelerators(t, func(t *testing.T, accel string) {
		for notify, want := range map[vmm.Notify]uint64{vmm.NotifyExit: times, vmm.NotifyIOEventFD: 0, "": 0} {
			m := newMachine(t, vmm.Config{Kernel: tinyKernel(t, code), Accel: accel, Notify: notify,
				Devices: []virtio.Device{rng.New("rng", nil)}})
			if err := runFor(t, m, time.Minute); err != nil {
				t.Fatal(err)
			}
			if n := m.CPUStats()[0].Exits["mmio"]; n != want {
				t.Errorf("%q: %d exits for %d notifications, want %d", notify, n, times, want)
			}
		}
	})
}

func TestNotifyIsChecked(t *testing.T) {
	kernel := tinyKernel(t, powerOff)
	for _, c := range []vmm.Config{
		{Kernel: kernel, Notify: "smoke"},
		{Kernel: kernel, Notify: vmm.NotifyExit, Deterministic: true},
	} {
		if m, err := vmm.New(c); err == nil {
			_ = m.Close()
			t.Errorf("%+v was accepted", c)
		}
	}
}
