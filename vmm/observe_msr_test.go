package vmm_test

import (
	"slices"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
)

// TestTraceOfMSRs: accesses are seen, and do what they do unseen.
func TestTraceOfMSRs(t *testing.T) {
	code := append([]byte{
		0xb9, 0x02, 0x01, 0x00, 0xc0, // mov ecx, KERNEL_GS_BASE
		0xb8, 0x78, 0x56, 0x34, 0x12, // mov eax, 0x12345678
		0x31, 0xd2, // xor edx, edx
		0x0f, 0x30, // wrmsr
		0x31, 0xc0, // xor eax, eax
		0x0f, 0x32, // rdmsr
		0x3d, 0x78, 0x56, 0x34, 0x12, // cmp eax, 0x12345678
		0x75, 0xfe, // jne $
	}, powerOff...)
	accelerators(t, func(t *testing.T, accel string) {
		m := newMachine(t, vmm.Config{Kernel: tinyKernel(t, code), Accel: accel})
		k := new(keeper)
		runTraced(t, m, vmm.TraceOptions{Events: 4096}, func(*vmm.Tracing) vmm.TraceSink { return k })
		for _, kind := range []trace.Kind{trace.KindWriteMSR, trace.KindReadMSR} {
			if !slices.ContainsFunc(k.events, func(e trace.Event) bool {
				return e.Kind == kind && e.Addr == 0xc0000102 && e.Value == 0x12345678 && e.RIP >= 1<<20
			}) {
				t.Errorf("no event of kind %v", kind)
			}
		}
	})
}
