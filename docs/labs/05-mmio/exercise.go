//go:build ignore

package main

// A device that sums: CRC-32 (IEEE, as hash/crc32 has it) of what it is given.
// Its 16 bytes, little-endian:
//
//	0x0  ID     reads 0x314d5553 ("SUM1")
//	0x4  DATA   each byte written here is added, in the order of addresses; reads 0
//	0x8  SUM    reads the sum of what was added
//	0xc  COUNT  reads how many bytes that was; a write, of whatever, begins anew
//
// A guest may access 1, 2 or 4 bytes at once, at any offset that fits into
// the 16. Writes to ID and SUM do nothing.

// Device is such a device, just switched on.
type Device struct{}

// Read fills p with what a guest reads from offset on.
func (d *Device) Read(offset uint64, p []byte) {
	if offset == 0 && len(p) == 4 {
		copy(p, "SUM1")
	}
}

// Write takes p, which a guest writes from offset on.
func (d *Device) Write(offset uint64, p []byte) {
}
