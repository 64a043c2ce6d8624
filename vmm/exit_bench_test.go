package vmm_test

import (
	"encoding/binary"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
)

// BenchmarkMachineExit is a machine's exits, whole: the guest writes to a
// register of the serial port that does nothing, over and over, nobody looks.
func BenchmarkMachineExit(b *testing.B) {
	for _, accel := range []string{"soft", "kvm"} {
		b.Run(accel, func(b *testing.B) {
			acceltest.Need(b, accel)
			code := []byte{0xb9, 0, 0, 0, 0, 0xba, 0xff, 0x03, 0, 0} // mov ecx, N; mov edx, 0x3ff
			binary.LittleEndian.PutUint32(code[1:], uint32(b.N))
			code = append(code, 0xee, 0xff, 0xc9, 0x75, 0xfb) // out dx, al; dec ecx; jnz out
			m, err := vmm.New(vmm.Config{Kernel: tinyKernel(b, append(code, powerOff...)), Accel: accel, Memory: 16 << 20})
			if err != nil {
				b.Fatal(err)
			}
			defer m.Close()
			b.ResetTimer()
			if err := m.Run(b.Context()); err != nil {
				b.Fatal(err)
			}
		})
	}
}
