//go:build !(linux && amd64)

package vmm

import (
	"fmt"
	"log/slog"
	"runtime"
)

func openKVM(*slog.Logger) (VM, error) {
	return nil, fmt.Errorf("kvm: not available on %s/%s: it needs Linux on an x86-64 processor", runtime.GOOS, runtime.GOARCH)
}

// KernelsEmulated says whether this host's KVM emulates guest kernels: there is
// none.
func KernelsEmulated() bool { return false }
