package vmm

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/softcpu"
)

func TestSoftAcceleratorIsThereEverywhere(t *testing.T) {
	var out bytes.Buffer
	vm, err := openAccelerator("soft", slog.New(slog.NewTextHandler(&out, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	if vm.Kind() != AccelSoft {
		t.Errorf("kind %q, want %q", vm.Kind(), AccelSoft)
	}
	if out.Len() != 0 {
		t.Errorf("said %q about an accelerator that was asked for", out.String())
	}
}

func TestAutoSaysWhatTheSoftwareCPUCosts(t *testing.T) {
	var out bytes.Buffer
	vm, err := openAccelerator("auto", slog.New(slog.NewTextHandler(&out, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	if vm.Kind() == AccelSoft && strings.Count(out.String(), "\n") != 1 {
		t.Errorf("without KVM it said %q, want one line", out.String())
	}
}

func TestDeterministicNeedsTheSoftwareCPU(t *testing.T) {
	det := softcpu.Options{Deterministic: true}
	if _, err := openAccelerator("kvm", slog.New(slog.DiscardHandler), det); err == nil || !strings.Contains(err.Error(), "soft") {
		t.Errorf("deterministic KVM: error %v, want one that names --accel soft", err)
	}
	vm, err := openAccelerator("auto", slog.New(slog.DiscardHandler), det)
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	if vm.Kind() != AccelSoft {
		t.Errorf("deterministic auto is %q, want %q", vm.Kind(), AccelSoft)
	}
}

func TestUnknownAccelerator(t *testing.T) {
	if _, err := openAccelerator("tcg", slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "soft") {
		t.Errorf("error %v, want one that names the choices", err)
	}
}
