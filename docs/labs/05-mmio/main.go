//go:build ignore

// This program is around your device: it takes the guest's accesses from the
// virtual machine and hands them to Device.
//
//	access: | write u8 | length u8 | offset u64 | data, 8 bytes |
//	answer: | data, 8 bytes |
package main

import (
	"encoding/binary"
	"io"
	"os"
)

func main() {
	in, out := os.Stdin, os.Stdout
	os.Stdout = os.Stderr // what the device prints is for its author
	var device Device
	var access [18]byte
	for {
		if _, err := io.ReadFull(in, access[:]); err != nil {
			return
		}
		offset, data := binary.LittleEndian.Uint64(access[2:]), access[10:]
		if p := data[:access[1]]; access[0] != 0 {
			device.Write(offset, p)
		} else {
			clear(data)
			device.Read(offset, p)
		}
		if _, err := out.Write(data); err != nil {
			return
		}
	}
}
