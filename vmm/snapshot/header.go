// Package snapshot is the format of a machine's snapshot: a folder with the
// file "state" (a header, then a JSON document) and the file "memory", in which
// pages of zeros are holes.
//
// A snapshot is written into a new folder beside its place, synced, and moved
// there: whenever the writer is killed, the old snapshot is whole or there is
// none. What a reader gets is checked: the header and the state by checksums,
// always; memory by its size, and by checksums where the reader asks for that,
// because reading all of it would take longer than a restore may.
package snapshot

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
)

// Version is the version of the format that this package writes, and the
// newest that it reads.
const Version = 1

// The header of the state file; numbers are little-endian.
//
//	 0  8  "VITRSNAP"
//	 8  4  version of the format
//	12  4  length of the header: 96
//	16 16  id, different for every snapshot
//	32  8  length of the state behind the header
//	40  8  length of the memory file
//	48 32  SHA-256 of the state
//	80 12  zero
//	92  4  CRC-32C of the 92 bytes before
const (
	headerSize = 96
	magic      = "VITRSNAP"
	maxState   = 256 << 20
)

// Names of the files.
const (
	stateFile  = "state"
	memoryFile = "memory"
)

// ID is a snapshot's identity: 16 random bytes.
type ID [16]byte

func newID() (id ID) {
	_, _ = rand.Read(id[:]) // never fails
	return id
}

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText implements encoding.TextMarshaler.
func (id ID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *ID) UnmarshalText(b []byte) error {
	if len(b) != hex.EncodedLen(len(id)) {
		return fmt.Errorf("snapshot id %q: want %d hexadecimal digits", b, hex.EncodedLen(len(id)))
	}
	_, err := hex.Decode(id[:], b)
	return err
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type header struct {
	version    uint32
	id         ID
	stateLen   uint64
	memoryLen  uint64
	stateHash  [sha256.Size]byte
	headerLen  uint32
	headerHash uint32
}

func (h *header) encode() []byte {
	b := make([]byte, headerSize)
	copy(b, magic)
	binary.LittleEndian.PutUint32(b[8:], h.version)
	binary.LittleEndian.PutUint32(b[12:], headerSize)
	copy(b[16:], h.id[:])
	binary.LittleEndian.PutUint64(b[32:], h.stateLen)
	binary.LittleEndian.PutUint64(b[40:], h.memoryLen)
	copy(b[48:], h.stateHash[:])
	binary.LittleEndian.PutUint32(b[92:], crc32.Checksum(b[:92], castagnoli))
	return b
}

// ErrDamaged is wrapped by the error for a snapshot whose files are not as
// they were written.
var ErrDamaged = errors.New("the snapshot is damaged")

// ErrNotSnapshot is wrapped by the error for files that never were one.
var ErrNotSnapshot = errors.New("not a snapshot")

// VersionError is a snapshot of a format that this package does not read.
type VersionError struct{ Version uint32 }

func (e *VersionError) Error() string {
	return fmt.Sprintf("format version %d, and this version of Vitrine reads only %d: use the one that made it", e.Version, Version)
}

// decodeHeader takes the first bytes of a state file. The magic number and the
// version come first, for those stay where they are in every version.
func decodeHeader(b []byte) (*header, error) {
	if len(b) < headerSize {
		return nil, fmt.Errorf("%w: a header of %d bytes", ErrDamaged, len(b))
	}
	if string(b[:8]) != magic {
		return nil, ErrNotSnapshot
	}
	h := &header{version: binary.LittleEndian.Uint32(b[8:]), headerLen: binary.LittleEndian.Uint32(b[12:])}
	if h.version != Version {
		return nil, &VersionError{h.version}
	}
	h.headerHash = binary.LittleEndian.Uint32(b[92:])
	if crc32.Checksum(b[:92], castagnoli) != h.headerHash || h.headerLen != headerSize {
		return nil, fmt.Errorf("%w: the header's checksum is wrong", ErrDamaged)
	}
	copy(h.id[:], b[16:])
	h.stateLen = binary.LittleEndian.Uint64(b[32:])
	h.memoryLen = binary.LittleEndian.Uint64(b[40:])
	copy(h.stateHash[:], b[48:])
	if h.stateLen == 0 || h.stateLen > maxState || h.memoryLen > maxMemory {
		return nil, fmt.Errorf("%w: a state of %d bytes, memory of %d", ErrDamaged, h.stateLen, h.memoryLen)
	}
	return h, nil
}
