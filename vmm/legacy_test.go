package vmm_test

import (
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm"
)

// legacyTimer is a guest that knows no APIC: it takes three interrupts of the
// 8254 through the 8259s, asleep in between, and turns the machine off.
var legacyTimer = []byte{
	0x48, 0x8d, 0x05, 0x61, 0, 0, 0, //                 lea rax, [rel idtr]
	0x0f, 0x01, 0x18, //                                lidt [rax]
	0x48, 0xc7, 0xc4, 0, 0, 0x20, 0, //                 mov rsp, 0x200000
	0x48, 0x8d, 0x05, 0x45, 0, 0, 0, //                 lea rax, [rel handler]
	0x48, 0x8d, 0x3d, 0x59, 0, 0, 0, //                 lea rdi, [rel gate]
	0x66, 0x89, 0x07, //                                mov [rdi], ax
	0x48, 0xc1, 0xe8, 0x10, //                          shr rax, 16
	0x66, 0x89, 0x47, 0x06, //                          mov [rdi+6], ax
	0xb0, 0x11, 0xe6, 0x20, 0xb0, 0x20, 0xe6, 0x21, //  ICW1; ICW2: vector 0x20
	0xb0, 0x04, 0xe6, 0x21, 0xb0, 0x01, 0xe6, 0x21, //  ICW3, ICW4
	0xb0, 0xfe, 0xe6, 0x21, //                          only input 0
	0xb0, 0x34, 0xe6, 0x43, //                          8254: counter 0, mode 2,
	0x31, 0xc0, 0xe6, 0x40, 0xb0, 0x10, 0xe6, 0x40, //  each 4096 ticks
	0x31, 0xdb, //                                      xor ebx, ebx
	0xfb, 0xf4, 0x83, 0xfb, 0x03, 0x72, 0xf9, //        1: sti; hlt; cmp ebx, 3; jb 1b
	0xba, 0x10, 0x05, 0, 0, 0xb0, 0x11, 0xee, 0xeb, 0xfe, // power off
	0xff, 0xc3, 0xb0, 0x20, 0xe6, 0x20, 0x48, 0xcf, //  handler: inc ebx; EOI; iretq
	0x0f, 0x1f, 0x00,
	0x0f, 0x02, 0xf0, 0xfe, 0x0f, 0, 0, 0, 0, 0, // idtr: so that the gate is vector 0x20's
	0x66, 0x0f, 0x1f, 0x44, 0, 0,
	0, 0, 0x10, 0, 0, 0x8e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // gate
}

// TestGuestWithoutAnAPIC: after reset the boot processor's LINT0 is ExtINT, as
// KVM leaves it and as firmware would, so that the 8259s' interrupts arrive.
func TestGuestWithoutAnAPIC(t *testing.T) {
	accelerators(t, func(t *testing.T, accel string) {
		m := newMachine(t, vmm.Config{Kernel: tinyKernel(t, legacyTimer), Accel: accel})
		if err := runFor(t, m, time.Minute); err != nil {
			t.Error(err)
		}
	})
}
