//go:build ignore

package main

// Device has one register, a byte at offset 0. It says how often it has been
// read, and begins anew when it is written.
type Device struct{ reads byte }

// Read is a guest's read of len(p) bytes from offset on.
func (d *Device) Read(offset uint64, p []byte) {
	if offset == 0 {
		p[0] = d.reads
		d.reads++
	}
}

// Write is a guest's write.
func (d *Device) Write(offset uint64, p []byte) {
	if offset == 0 {
		d.reads = 0
	}
}
