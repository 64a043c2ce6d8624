//go:build !(linux && amd64)

package doctor

import "runtime"

// Examine reports that KVM is a matter of Linux on x86-64.
func Examine() Report {
	var r Report
	r.add("/dev/kvm", Fail, runtime.GOOS+"/"+runtime.GOARCH+" has none", "run guests with --accel soft")
	return r
}
