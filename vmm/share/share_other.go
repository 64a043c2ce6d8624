//go:build !linux

package share

import (
	"errors"

	"github.com/hugelgupf/p9/p9"
)

// Share is a folder that is shown.
type Share struct{}

var errNoShare = errors.New("sharing a folder needs Linux")

// Open fails: what keeps a guest inside the folder is Linux's.
func Open(string, bool) (*Share, error) { return nil, errNoShare }

// Close releases the folder.
func (*Share) Close() error { return nil }

// ReadOnly says whether the guest may only read.
func (*Share) ReadOnly() bool { return true }

// Attach implements p9.Attacher.
func (*Share) Attach() (p9.File, error) { return nil, errNoShare }
