//go:build !linux

package memory

import "errors"

func mapPages(uint64, Pages) ([]byte, func() error, error) {
	return nil, nil, errors.New("huge pages are Linux's alone")
}
