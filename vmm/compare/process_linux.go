package compare

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// process runs the program as it is.
type process struct{ site *Site }

var _ Engine = (*process)(nil)

// Info implements Engine.
func (p *process) Info() Info {
	i := Info{Name: "process", Title: "process", Kind: KindProcess, OwnStatus: true}
	if p.site != nil {
		i.Disk = []DiskItem{fileItem("root", filepath.Join(p.site.Root, "probe"))}
	}
	return i
}

// Prepare implements Engine.
func (p *process) Prepare(_ context.Context, s *Site) error {
	p.site = s
	return nil
}

// Command implements Engine.
func (p *process) Command(_ string, j Job) *exec.Cmd {
	c := exec.Command(filepath.Join(p.site.Root, "probe"), j.args()...)
	c.Dir = p.site.Root
	c.Env = []string{}
	return c
}

// Remove implements Engine.
func (p *process) Remove(context.Context, string) error { return nil }

// Close implements Engine.
func (p *process) Close() error { return nil }

// namespaces runs the program as containers are run, but with nothing else
// around it: new namespaces and a root of its own.
type namespaces struct{ process }

var _ Engine = (*namespaces)(nil)

// Info implements Engine.
func (n *namespaces) Info() Info {
	i := n.process.Info()
	i.Name, i.Title = "namespaces", "namespaces"
	if os.Geteuid() != 0 {
		i.Note = "with a user namespace, since it is not root who runs it"
	}
	return i
}

// Command implements Engine.
func (n *namespaces) Command(_ string, j Job) *exec.Cmd {
	c := exec.Command("/probe", j.args()...)
	c.Dir = "/"
	c.Env = []string{}
	a := &syscall.SysProcAttr{
		Chroot:     n.site.Root,
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
	}
	if os.Geteuid() != 0 {
		a.Cloneflags |= syscall.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	c.SysProcAttr = a
	return c
}
