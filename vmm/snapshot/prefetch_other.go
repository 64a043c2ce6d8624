//go:build !linux

package snapshot

// Prefetch does nothing here.
func (s *Snapshot) Prefetch() {}
