//go:build !linux

package snapshot

import "os"

// place fills in what is known of where a file is.
func (m *Image) place(info os.FileInfo) { m.MTime = info.ModTime().UnixNano() }
