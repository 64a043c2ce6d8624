//go:build linux

package vmm_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/vitrine-vmm/vitrine/devices/debugport"
	guestimages "github.com/vitrine-vmm/vitrine/guest-images"
	"github.com/vitrine-vmm/vitrine/vmm"
)

// The embedded guest runs a shell's commands and turns itself off at their end.
// Without Accel it would run under KVM where that is.
func Example() {
	dir, err1 := os.MkdirTemp("", "vitrine-example-")
	defer os.RemoveAll(dir)
	kernel, err2 := guestimages.Path(dir, guestimages.KernelLean)
	root, err3 := guestimages.Path(dir, guestimages.RootFS)
	var console strings.Builder
	m, err4 := vmm.New(vmm.Config{
		Accel: "soft", Kernel: kernel, PMEMImage: root,
		CommandLine: guestimages.CommandLine + " quiet vitrine.console=ttyS0 vitrine.exit=poweroff",
		Console:     vmm.Serial{In: strings.NewReader("uname -s; exit\n"), Out: &console},
		OnMark: func(mark uint8) {
			if mark == debugport.MarkUserSpace {
				fmt.Println("user space")
			}
		},
	})
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		fmt.Println(err)
		return
	}
	defer m.Close()
	fmt.Println(m.Run(context.Background()))
	fmt.Println("it is Linux:", strings.Contains(console.String(), "\nLinux\r\n"))
	// Output:
	// user space
	// <nil>
	// it is Linux: true
}
