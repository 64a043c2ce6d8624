package vmm

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/vitrine-vmm/vitrine/vmm/doctor"
	"github.com/vitrine-vmm/vitrine/vmm/kvm"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// kvmVM makes vmm/kvm, which knows no interfaces, into a VM.
type kvmVM struct {
	*kvm.VM
	sys   *kvm.System
	cpuid func() ([]x86.CPUIDEntry, error)
}

var (
	_ VM   = kvmVM{}
	_ VCPU = (*kvm.VCPU)(nil)
	_ MSI  = (*kvm.MSI)(nil)
)

func openKVM(log *slog.Logger) (VM, error) {
	sys, err := kvm.Open()
	if err != nil {
		return nil, err
	}
	// KVM asks the processor for every leaf, and where that is a guest too each
	// is an exit: a millisecond, meanwhile.
	cpuid := sync.OnceValues(sys.SupportedCPUID)
	go func() { _, _ = cpuid() }()
	vm, err := sys.CreateVM()
	if err != nil {
		_, _ = cpuid()
		_ = sys.Close()
		return nil, err
	}
	adviseSoft(log)
	return kvmVM{vm, sys, cpuid}, nil
}

func (v kvmVM) Kind() Accelerator { return AccelKVM }

func (v kvmVM) NewVCPU(id int, cpuid []x86.CPUIDEntry) (VCPU, error) {
	c, err := v.CreateVCPU(id, cpuid)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (v kvmVM) SupportedCPUID() ([]x86.CPUIDEntry, error) {
	table, err := v.cpuid()
	return slices.Clone(table), err
}

func (v kvmVM) MSI() (MSI, error) {
	m, err := v.NewMSI()
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (v kvmVM) Close() error {
	_, _ = v.cpuid() // uses sys
	err := v.VM.Close()
	if e := v.sys.Close(); err == nil {
		err = e
	}
	return err
}

// adviseSoft says in one line that the software CPU would boot faster, on a
// host whose KVM emulates guest kernels. Only a guest can tell (names of
// processors and modules do not), and making one takes longer than a boot
// decision may: it is done once for each boot of the host, beside the real
// guest, and then remembered.
func adviseSoft(log *slog.Logger) {
	const line = "this host's KVM emulates guest kernels, about 400 ns an instruction: --accel soft boots faster here"
	finding := findingFile()
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || finding == "" {
		return
	}
	if known, err := os.ReadFile(finding); err == nil && bytes.HasPrefix(known, boot) {
		if string(known[len(boot):]) == "emulated" {
			log.Warn(line)
		}
		return
	}
	go func() {
		emulated, err := doctor.KernelEmulated()
		if err != nil {
			return // the guest itself will show what is wrong
		}
		word := "native"
		if emulated {
			word = "emulated"
			log.Warn(line)
		}
		if err := remember(finding, append(boot, word...)); err != nil {
			log.Debug(fmt.Sprintf("remember how KVM runs guest kernels: %v", err))
		}
	}()
}

// KernelsEmulated says whether this host's KVM emulates guest kernels. What
// adviseSoft has found is remembered; the first machine after a boot of the
// host finds out itself, which takes some milliseconds. Without KVM it is
// false.
func KernelsEmulated() bool {
	finding := findingFile()
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err == nil && finding != "" {
		if known, err := os.ReadFile(finding); err == nil && bytes.HasPrefix(known, boot) {
			return string(known[len(boot):]) == "emulated"
		}
	}
	emulated, err := doctor.KernelEmulated()
	return err == nil && emulated
}

// findingFile is where the finding of adviseSoft is kept: the host's boot id
// and a word.
func findingFile() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "vitrine", "kvm-guest-kernels")
}

func remember(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
