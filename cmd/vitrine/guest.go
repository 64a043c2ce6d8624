package main

import (
	"context"
	"fmt"
	"net"
	"strings"

	"github.com/vitrine-vmm/vitrine/devices/debugport"
	"github.com/vitrine-vmm/vitrine/devices/virtio/vsock"
	guestimages "github.com/vitrine-vmm/vitrine/guest-images"
	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/agent"
)

// openKernel chooses the kernel, its command line and, for the embedded guest,
// its root.
func (l *launch) openKernel(o *runOptions) (err error) {
	if o.embedded == "" {
		l.cfg.Kernel = o.kernel
		l.cfg.CommandLine = o.emulatedWords() + o.ownCommandLine()
		return nil
	}
	if l.cfg.Kernel, err = guestimages.Path(l.cfg.CacheDir, "kernel-"+o.embedded); err != nil {
		return err
	}
	l.cfg.FixedKernel = true
	if !o.hasAgent() {
		l.cfg.CommandLine = o.emulatedWords() + o.ownCommandLine()
		return nil
	}
	if l.cfg.PMEMImage, err = guestimages.Path(l.cfg.CacheDir, guestimages.RootFS); err != nil {
		return err
	}
	l.cfg.CommandLine = l.embeddedCommandLine(o)
	return nil
}

// embeddedCommandLine is what the embedded guest is told: what its kernel
// needs, what suits the accelerator, its network and name, and what the user
// adds. The user's words come last, so that they win.
func (l *launch) embeddedCommandLine(o *runOptions) string {
	words := []string{guestimages.CommandLine}
	if !o.verbose && o.console == "" {
		words = append(words, guestimages.Quiet)
	}
	switch {
	case o.accel == string(vmm.AccelSoft):
		words = append(words, guestimages.FewerInstructions)
	case vmm.KernelsEmulated():
		words = append(words, guestimages.FewerInstructions, guestimages.EmulatedByKVM)
	}
	if o.detach {
		words = append(words, guestimages.NoWakeUps)
	}
	if o.balloon {
		words = append(words, guestimages.ReportPages)
	}
	if n := l.network; n != nil {
		words = append(words,
			fmt.Sprintf("%seth%d:%v/%d", guestimages.ParamIP, l.networkIndex, n.GuestIP(), n.Subnet().Bits()),
			guestimages.ParamGateway+n.Gateway().String(), guestimages.ParamDNS+n.DNS().String())
	}
	if o.consoleOnStdio() {
		words = append(words, guestimages.ParamConsole+"ttyS0", guestimages.ParamExit+"poweroff")
	}
	if o.name != "" {
		words = append(words, guestimages.ParamHostname+o.name)
	}
	words = append(words, o.managedWords()...)
	if o.append != "" {
		words = append(words, o.append)
	}
	return strings.Join(words, " ")
}

// guestCID is the guest's context ID. Each machine has its sockets to itself,
// so that all can have the same.
const guestCID = vsock.MinCID

// openAgent connects the user with the agent in the embedded guest.
func (l *launch) openAgent(o *runOptions, r *runner) error {
	dev, err := vsock.New(vsock.Config{CID: guestCID, Name: "vsock"})
	if err != nil {
		return err
	}
	l.devices = append(l.devices, dev)
	client := agent.New(func(ctx context.Context) (net.Conn, error) { return dev.Dial(ctx, agent.Port) })
	s := newAgentSession(client, o, r)
	l.onClose(s.in.Close)
	l.session = s
	l.cfg.OnMark = func(mark uint8) {
		if mark == debugport.MarkAgent {
			s.listens.Store(true)
			s.agentReady()
		}
	}
	return nil
}
