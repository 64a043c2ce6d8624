//go:build unix

package chrome

import (
	"os/exec"
	"syscall"
)

// ownGroup puts the browser's processes in a group of their own, so that all
// of them can be ended.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func killGroup(cmd *exec.Cmd) {
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
}
