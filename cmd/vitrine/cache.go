package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// cacheDir is where unpacked kernels and the embedded guest's files are kept:
// $VITRINE_CACHE, or vitrine in the user's cache directory. It makes it.
func cacheDir() (string, error) {
	dir := os.Getenv("VITRINE_CACHE")
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("cache directory: %w: set VITRINE_CACHE to a folder", err)
		}
		dir = filepath.Join(base, "vitrine")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("cache directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("cache directory: %w: set VITRINE_CACHE to a folder that you may write to", err)
	}
	return dir, nil
}
