//go:build !(linux && amd64)

package vmm

import (
	"fmt"
	"runtime"
)

func openKVM() (VM, error) {
	return nil, fmt.Errorf("kvm: not available on %s/%s: it needs Linux on an x86-64 processor; use --accel soft", runtime.GOOS, runtime.GOARCH)
}
