//go:build vitrine_untraced

package vmm

const tracing = false
