//go:build linux && amd64

package kvm

import (
	"fmt"

	gokvm "github.com/bobuhiro11/gokvm/kvm"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// The interrupt controllers and the timer that all CPUs share.

const (
	ioGetIRQChip = 0xc208ae62
	ioSetIRQChip = 0x8208ae63
	ioGetPIT2    = 0x8070ae9f
	ioSetPIT2    = 0x4070aea0
)

// ioapicState is struct kvm_ioapic_state.
type ioapicState struct {
	base        uint64
	sel, id     uint32
	irr, _      uint32
	redirection [ioapicPins]uint64
}

// ioapicBase is where KVM's I/O APIC lies; nothing moves it.
const ioapicBase = 0xfec00000

// Chips is the state of what all CPUs share (api.rst 4.26, 4.71).
func (vm *VM) Chips() (x86.Chips, error) {
	var s x86.Chips
	for i := range s.PICs {
		if err := vm.getChip(uint32(i)); err != nil {
			return s, err
		}
		copy(bytesOf(&s.PICs[i]), vm.scratch.chip.Chip[:])
	}
	if err := vm.getChip(chipIOAPIC); err != nil {
		return s, err
	}
	var a ioapicState
	copy(bytesOf(&a), vm.scratch.chip.Chip[:])
	s.IOAPIC = x86.IOAPIC{Select: a.sel, ID: a.id, Lines: a.irr, Redirection: a.redirection}
	if _, err := ioctlPtr(vm.fd, ioGetPIT2, &vm.scratch.pit); err != nil {
		return s, fmt.Errorf("KVM_GET_PIT2: %w", err)
	}
	s.PIT = pitFrom(&vm.scratch.pit)
	return s, nil
}

func (vm *VM) getChip(id uint32) error {
	vm.scratch.chip = gokvm.IRQChip{ChipID: id}
	if _, err := ioctlPtr(vm.fd, ioGetIRQChip, &vm.scratch.chip); err != nil {
		return fmt.Errorf("KVM_GET_IRQCHIP %d: %w", id, err)
	}
	return nil
}

// SetChips sets the state of what all CPUs share, the timer last: it begins to
// count. The CPUs exist, with their local APICs set.
func (vm *VM) SetChips(s *x86.Chips) error {
	for i := range s.PICs {
		if err := vm.setChip(uint32(i), bytesOf(&s.PICs[i])); err != nil {
			return err
		}
	}
	a := ioapicState{base: ioapicBase, sel: s.IOAPIC.Select, id: s.IOAPIC.ID, irr: s.IOAPIC.Lines, redirection: s.IOAPIC.Redirection}
	if err := vm.setChip(chipIOAPIC, bytesOf(&a)); err != nil {
		return err
	}
	vm.scratch.pit = pitTo(&s.PIT)
	if _, err := ioctlPtr(vm.fd, ioSetPIT2, &vm.scratch.pit); err != nil {
		return fmt.Errorf("KVM_SET_PIT2: %w", err)
	}
	return nil
}

func (vm *VM) setChip(id uint32, state []byte) error {
	vm.scratch.chip = gokvm.IRQChip{ChipID: id}
	copy(vm.scratch.chip.Chip[:], state)
	if _, err := ioctlPtr(vm.fd, ioSetIRQChip, &vm.scratch.chip); err != nil {
		return fmt.Errorf("KVM_SET_IRQCHIP %d: %w", id, err)
	}
	return nil
}

// pitSpeaker is KVM_PIT_FLAGS_SPEAKER_DATA_ON.
const pitSpeaker = 1 << 1

func pitFrom(k *gokvm.PITState2) (s x86.PIT) {
	for i := range s.Channels {
		s.Channels[i] = *reinterpret[x86.PITChannel](&k.Channels[i])
	}
	if k.Flags&pitSpeaker != 0 {
		s.Speaker = 1 << 1
	}
	return s
}

func pitTo(s *x86.PIT) (k gokvm.PITState2) {
	for i := range s.Channels {
		k.Channels[i] = *reinterpret[gokvm.PITChannelState](&s.Channels[i])
	}
	if s.Speaker != 0 {
		k.Flags = pitSpeaker
	}
	return k
}
