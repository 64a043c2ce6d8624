// Package doctor finds out what a host can do for a hypervisor, by trying:
// names of processors and modules say little about what a guest meets.
package doctor

// Status is the outcome of a check.
type Status string

// Outcomes.
const (
	OK   Status = "ok"
	Warn Status = "warning" // a guest runs, but slower or with less
	Fail Status = "failed"  // no guest can run under KVM
)

// Check is one thing looked at. Advice says what to do when it is not OK.
type Check struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	Found  string `json:"found"`
	Advice string `json:"advice,omitempty"`
}

// Report is all of them.
type Report struct {
	Checks []Check `json:"checks"`

	// CanRun says whether a guest can run under KVM.
	CanRun bool `json:"can_run"`
	// Emulated says whether guest kernel code is emulated by the host, an
	// instruction at a time, instead of running on the processor.
	Emulated bool `json:"guest_kernel_emulated"`
	// NanosecondsPerIteration is what two instructions of guest kernel code
	// cost: below 10 on hardware.
	NanosecondsPerIteration float64 `json:"guest_kernel_ns_per_iteration"`
	// MasksTaken says whether CPUID bits that were cleared stay cleared for
	// the guest.
	MasksTaken bool `json:"cpuid_masks_taken"`
}

func (r *Report) add(name string, s Status, found, advice string) {
	if s == OK {
		advice = ""
	}
	r.Checks = append(r.Checks, Check{name, s, found, advice})
}

// failed says whether any check so far rules out a guest.
func (r *Report) failed() bool {
	for _, c := range r.Checks {
		if c.Status == Fail {
			return true
		}
	}
	return false
}
