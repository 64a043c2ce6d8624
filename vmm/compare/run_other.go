//go:build !linux

package compare

import (
	"context"
	"errors"
)

// Run measures, on Linux.
func Run(context.Context, Config) (*Result, error) {
	return nil, errors.New("comparisons are measured on Linux only: use --from with a file from there")
}
