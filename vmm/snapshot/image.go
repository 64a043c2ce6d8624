package snapshot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Identify describes f, of which the first size bytes count, so that it is
// recognised when the snapshot is restored.
func Identify(f *os.File, size uint64) (Image, error) {
	path, err := filepath.Abs(f.Name())
	if err != nil {
		return Image{}, err
	}
	info, err := f.Stat()
	if err != nil {
		return Image{}, err
	}
	m := Image{Path: path, Size: size}
	m.place(info)
	m.CRC, err = FileCRC(f, size)
	return m, err
}

// Open opens the file that m describes: at path, or where it was if path is
// "". A file that has been moved or copied is read and compared.
func (m *Image) Open(path string) (*os.File, error) {
	if path == "" {
		path = m.Path
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := m.check(f); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return f, nil
}

var errOtherFile = errors.New("it is not the file that the snapshot was made with")

func (m *Image) check(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if uint64(info.Size()) < m.Size {
		return errOtherFile
	}
	now := Image{Path: m.Path, Size: m.Size, CRC: m.CRC}
	now.place(info)
	if now == *m && m.Inode != 0 {
		return nil
	}
	if sum, err := FileCRC(f, m.Size); err != nil || sum != m.CRC {
		return errors.Join(errOtherFile, err)
	}
	return nil
}
