//go:build !linux

package snapshot

import (
	"errors"
	"os"
)

// lockFolder opens a folder; here nothing tells a writer that lives from one
// that was killed, so nothing is ever swept.
func lockFolder(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// exchange moves the folder dir to place and returns where what was there is.
func exchange(dir, place string) (old string, err error) {
	if err := os.Rename(dir, place); err == nil {
		return "", nil
	}
	aside := newName(place)
	if err := os.Rename(place, aside); err != nil {
		return "", err
	}
	if err := os.Rename(dir, place); err != nil {
		return "", errors.Join(err, os.Rename(aside, place))
	}
	return aside, nil
}
