//go:build !vitrine_untraced

package vmm

// tracing is false in builds with the tag vitrine_untraced, which exist to
// measure what being traceable costs: .ci/trace-cost.
const tracing = true
