package compare

import (
	"errors"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// spawner starts processes from one thread, which lives as long as they may:
// they are sent SIGKILL when that thread ends, so that none outlives a
// comparison that was killed. The thread can have a view of the file systems of
// its own, which its children inherit without any cost to their start.
type spawner struct {
	calls chan func()
}

// newSpawner starts the thread. hide: without the cgroup v2 hierarchy that is
// mounted beside v1. crun and podman refuse to work where it has controllers.
func newSpawner(hide string) (*spawner, error) {
	s := &spawner{calls: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := hideMount(hide)
		ready <- err
		if err != nil {
			return
		}
		for f := range s.calls {
			f()
		}
	}()
	return s, <-ready
}

func hideMount(dir string) error {
	if dir == "" {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return err
	}
	return unix.Unmount(dir, unix.MNT_DETACH)
}

// start starts the command in a process group of its own.
func (s *spawner) start(c *exec.Cmd) error {
	if c.SysProcAttr == nil {
		c.SysProcAttr = &syscall.SysProcAttr{}
	}
	c.SysProcAttr.Setpgid = true
	c.SysProcAttr.Pdeathsig = syscall.SIGKILL
	return s.do(c.Start)
}

func (s *spawner) do(f func() error) error {
	err := make(chan error, 1)
	s.calls <- func() { err <- f() }
	return <-err
}

func (s *spawner) close() { close(s.calls) }

// hiddenUnified is where cgroup v2 is mounted beside v1, "" if it is not.
func hiddenUnified() string {
	const dir = "/sys/fs/cgroup/unified"
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return ""
	}
	return dir
}

// killGroup ends a command and the processes of its group.
func killGroup(pid int) error {
	err := syscall.Kill(-pid, syscall.SIGKILL)
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}
