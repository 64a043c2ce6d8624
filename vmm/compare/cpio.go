package compare

import (
	"bytes"
	"fmt"
)

// initramfs is the root file system as a "newc" archive (cpio(5), and
// Documentation/driver-api/early-userspace/buffer-format.rst of Linux): the
// folders, /dev/console for the kernel to give process 1, and the program.
func initramfs(program []byte) []byte {
	var b bytes.Buffer
	for _, d := range rootFolders {
		cpioEntry(&b, d, 0o40755, 0, 0, nil)
	}
	cpioEntry(&b, "dev/console", 0o20600, 5, 1, nil)
	cpioEntry(&b, "probe", 0o100755, 0, 0, program)
	cpioEntry(&b, "TRAILER!!!", 0, 0, 0, nil)
	return b.Bytes()
}

// rootFolders are all that is in the root file system beside the program.
var rootFolders = []string{"dev", "proc", "sys", "tmp"}

func cpioEntry(b *bytes.Buffer, name string, mode, major, minor int, data []byte) {
	fmt.Fprintf(b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		b.Len(), mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name)+1, 0)
	b.WriteString(name)
	b.WriteByte(0)
	pad(b)
	b.Write(data)
	pad(b)
}

func pad(b *bytes.Buffer) {
	for b.Len()%4 != 0 {
		b.WriteByte(0)
	}
}
