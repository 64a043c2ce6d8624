//go:build linux && amd64

package kvm

import (
	"encoding/binary"
	"errors"
	"fmt"

	gokvm "github.com/bobuhiro11/gokvm/kvm"
	"golang.org/x/sys/unix"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// DevicePath is where the kernel offers KVM.
const DevicePath = "/dev/kvm"

// apiVersion is the only version of the API there is (api.rst 4.1).
const apiVersion = 12

// System is an open /dev/kvm.
type System struct {
	fd       int
	mmapSize int
}

// Open opens /dev/kvm and checks the API version. The error says what to do
// when KVM is missing, forbidden or busy.
func Open() (*System, error) {
	fd, err := unix.Open(DevicePath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w%s", DevicePath, err, openHint(err))
	}
	s := &System{fd: fd}
	if err := s.check(); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

func openHint(err error) string {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return ": KVM is not available here: load the module (modprobe kvm_intel or kvm_amd), enable virtualisation in the firmware, or use --accel soft"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return ": add your user to the group of the device (usually: sudo usermod -aG kvm $USER, then log in again)"
	case errors.Is(err, unix.EBUSY):
		return ": another hypervisor holds the CPU's virtualisation; stop it first"
	}
	return ""
}

func (s *System) check() error {
	v, err := gokvm.GetAPIVersion(uintptr(s.fd))
	if err != nil {
		return fmt.Errorf("%s: KVM_GET_API_VERSION: %w", DevicePath, err)
	}
	if v != apiVersion {
		return fmt.Errorf("%s: API version %d, want %d", DevicePath, v, apiVersion)
	}
	n, err := gokvm.GetVCPUMMmapSize(uintptr(s.fd))
	if err != nil {
		return fmt.Errorf("%s: KVM_GET_VCPU_MMAP_SIZE: %w", DevicePath, err)
	}
	s.mmapSize = int(n)
	return nil
}

// Close closes /dev/kvm. VMs created from it live on.
func (s *System) Close() error { return unix.Close(s.fd) }

// Check returns the value of a capability: 0 where it is missing.
func (s *System) Check(c Capability) int {
	n, err := gokvm.CheckExtension(uintptr(s.fd), gokvm.Capability(c))
	if err != nil {
		return 0
	}
	return int(n)
}

// SupportedCPUID is KVM_GET_SUPPORTED_CPUID: every leaf that KVM can give a
// guest on this host, KVM's own leaves (0x40000000…) among them.
func (s *System) SupportedCPUID() ([]x86.CPUIDEntry, error) {
	return getCPUID(s.fd, ioGetSupportedCPUID)
}

// cpuidEntrySize is sizeof(struct kvm_cpuid_entry2).
const cpuidEntrySize = 40

func getCPUID(fd int, req uintptr) ([]x86.CPUIDEntry, error) {
	for n := 128; n <= 1024; n *= 2 {
		b := make([]byte, 8+n*cpuidEntrySize)
		binary.NativeEndian.PutUint32(b, uint32(n))
		if _, err := ioctlBytes(fd, req, b); errors.Is(err, unix.E2BIG) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("get CPUID: %w", err)
		}
		entries := make([]x86.CPUIDEntry, binary.NativeEndian.Uint32(b))
		for i := range entries {
			copy(bytesOf(&entries[i]), b[8+i*cpuidEntrySize:])
		}
		return entries, nil
	}
	return nil, errors.New("get CPUID: more than 1024 entries")
}

// MSRIndexList is KVM_GET_MSR_INDEX_LIST: the registers whose values make up
// a vCPU's state.
func (s *System) MSRIndexList() ([]uint32, error) {
	const maxMSRs = 4096
	b := make([]byte, 4+4*maxMSRs)
	binary.NativeEndian.PutUint32(b, maxMSRs)
	if _, err := ioctlBytes(s.fd, ioGetMSRIndexList, b); err != nil {
		return nil, fmt.Errorf("KVM_GET_MSR_INDEX_LIST: %w", err)
	}
	list := make([]uint32, binary.NativeEndian.Uint32(b))
	for i := range list {
		list[i] = binary.NativeEndian.Uint32(b[4+4*i:])
	}
	return list, nil
}

// Capability is a KVM extension (KVM_CAP_*).
type Capability uint16

// Capabilities that Vitrine asks for.
const (
	CapIRQChip           Capability = 0
	CapUserMemory        Capability = 3
	CapSetTSSAddr        Capability = 4
	CapExtCPUID          Capability = 7
	CapNrVCPUs           Capability = 9
	CapMPState           Capability = 14
	CapSetGuestDebug     Capability = 23
	CapIRQRouting        Capability = 25
	CapIRQFD             Capability = 32
	CapPIT2              Capability = 33
	CapIOEventFD         Capability = 36
	CapAdjustClock       Capability = 39
	CapVCPUEvents        Capability = 41
	CapDebugRegs         Capability = 50
	CapXCRS              Capability = 56
	CapTSCControl        Capability = 60
	CapMaxVCPUs          Capability = 66
	CapSyncRegs          Capability = 74
	CapSignalMSI         Capability = 77
	CapReadonlyMem       Capability = 81
	CapImmediateExit     Capability = 136
	CapManualDirtyLog2   Capability = 168
	CapXSave2            Capability = 208
	CapIOEventFDAnyLen   Capability = 122
	CapX86UserSpaceMSR   Capability = 188
	CapTripleFaultEvents Capability = 218
)

// Named is a capability with its name and what Vitrine needs it for.
type Named struct {
	Cap      Capability
	Name     string
	Required bool
	Purpose  string
}

// Capabilities lists what Vitrine uses, required ones first.
func Capabilities() []Named {
	return []Named{
		{CapUserMemory, "KVM_CAP_USER_MEMORY", true, "guest memory"},
		{CapIRQChip, "KVM_CAP_IRQCHIP", true, "interrupt controllers in the kernel"},
		{CapPIT2, "KVM_CAP_PIT2", true, "the 8254 timer"},
		{CapSetTSSAddr, "KVM_CAP_SET_TSS_ADDR", true, "real mode on older Intel CPUs"},
		{CapExtCPUID, "KVM_CAP_EXT_CPUID", true, "CPUID tables"},
		{CapIRQFD, "KVM_CAP_IRQFD", true, "interrupts without a system call in the run loop"},
		{CapIOEventFD, "KVM_CAP_IOEVENTFD", true, "virtqueue notifications without an exit to the VMM"},
		{CapIRQRouting, "KVM_CAP_IRQ_ROUTING", true, "message-signalled interrupts"},
		{CapImmediateExit, "KVM_CAP_IMMEDIATE_EXIT", true, "stopping a vCPU without a race"},
		{CapVCPUEvents, "KVM_CAP_VCPU_EVENTS", true, "injecting exceptions; snapshots"},
		{CapMPState, "KVM_CAP_MP_STATE", true, "several CPUs; snapshots"},
		{CapSyncRegs, "KVM_CAP_SYNC_REGS", false, "registers without extra system calls"},
		{CapReadonlyMem, "KVM_CAP_READONLY_MEM", false, "read-only persistent memory"},
		{CapXCRS, "KVM_CAP_XCRS", false, "snapshots"},
		{CapXSave2, "KVM_CAP_XSAVE2", false, "snapshots of large vector state"},
		{CapDebugRegs, "KVM_CAP_DEBUGREGS", false, "snapshots"},
		{CapAdjustClock, "KVM_CAP_ADJUST_CLOCK", false, "time after a restore"},
		{CapTSCControl, "KVM_CAP_TSC_CONTROL", false, "restoring on a host with another TSC rate"},
		{CapSetGuestDebug, "KVM_CAP_SET_GUEST_DEBUG", false, "the debugger"},
		{CapManualDirtyLog2, "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2", false, "differential snapshots"},
		{CapX86UserSpaceMSR, "KVM_CAP_X86_USER_SPACE_MSR", false, "tracing MSR accesses"},
	}
}
