package main

import (
	"errors"
	"fmt"
	stdnet "net"
	"os"
	"path/filepath"
	"slices"

	virtionet "github.com/vitrine-vmm/vitrine/devices/virtio/net"
	"github.com/vitrine-vmm/vitrine/vmm/control"
	"github.com/vitrine-vmm/vitrine/vmm/tap"
	"github.com/vitrine-vmm/vitrine/vmm/usernet"
)

// netKeys are the settings of --net.
var netKeys = []string{"bridge=", "group=", "mac=", "bps=", "tap="}

// netOption is one --net.
type netOption struct {
	mode   string // "user" or "tap"; --net none leaves no netOption
	tap    string // the TAP device's name
	bridge string
	group  string
	mac    stdnet.HardwareAddr
	bps    uint64 // bits a second
}

// parseNet reads user[,group=NAME], tap[=NAME][,bridge=BRIDGE] or bridge=BRIDGE,
// each with [,mac=ADDRESS][,bps=RATE], or none.
func parseNet(s string) (n netOption, err error) {
	o, err := parseOptionText("--net", s, netKeys, true)
	if err != nil {
		return n, err
	}
	n = netOption{mode: o.first, tap: o.rest["tap"], bridge: o.rest["bridge"], group: o.rest["group"]}
	if n.mode == "" && (n.tap != "" || n.bridge != "") {
		n.mode = "tap"
	}
	if err := n.check(o); err != nil {
		return n, err
	}
	if text, ok := o.rest["mac"]; ok {
		if n.mac, err = stdnet.ParseMAC(text); err != nil || len(n.mac) != 6 || n.mac[0]&1 != 0 {
			return n, o.mistake(quote(text)+" is no address of a network device", "use one such as 52:54:00:12:34:56")
		}
	}
	rate, err := o.rate("bps")
	n.bps = uint64(rate)
	return n, err
}

func (n *netOption) check(o *optionText) error {
	const modes = "use user, tap, tap=NAME, bridge=BRIDGE or none"
	switch {
	case n.mode == "none" && len(o.rest) > 0:
		return o.mistake("no network has no settings", "use --net none alone")
	case !slices.Contains([]string{"user", "tap", "none"}, n.mode):
		return o.mistake("there is no such network", modes)
	case n.mode == "user" && (n.tap != "" || n.bridge != ""):
		return o.mistake("a user network has no TAP device and no bridge", modes)
	case n.mode == "tap" && n.group != "":
		return o.mistake("only user networks have groups", "use --net user,group="+n.group)
	case n.group != "" && control.CheckName(n.group) != nil:
		return o.mistake("this is no name for a group", "use letters, digits, '.', '_' and '-', a letter or digit first")
	case len(n.tap) > maxLinkName || len(n.bridge) > maxLinkName:
		return o.mistake("the name of the device is too long", fmt.Sprintf("Linux takes %d bytes", maxLinkName))
	}
	return nil
}

// maxLinkName is IFNAMSIZ of linux/if.h without the NUL.
const maxLinkName = 15

// parseNets reads all of --net. Without any there is a user network.
func parseNets(texts []string) ([]netOption, error) {
	if len(texts) == 0 {
		texts = []string{"user"}
	}
	var nets []netOption
	for _, s := range texts {
		n, err := parseNet(s)
		if err != nil {
			return nil, err
		}
		if n.mode != "none" {
			nets = append(nets, n)
			continue
		}
		if len(texts) > 1 {
			return nil, usagef("leave one out", "--net none stands beside another network")
		}
	}
	return nets, nil
}

// parsePublish reads all of --publish.
func parsePublish(texts []string, nets []netOption) ([]usernet.Publish, error) {
	var ports []usernet.Publish
	for _, s := range texts {
		p, err := usernet.ParsePublish(s)
		if err != nil {
			return nil, usagef("use [IP:]HOST:GUEST[/udp], such as 8080:80", "--publish %w", err)
		}
		ports = append(ports, p)
	}
	if len(ports) > 0 && !slices.ContainsFunc(nets, func(n netOption) bool { return n.mode == "user" }) {
		return nil, usagef("use --net user, or reach the guest at its own address", "--publish: there is no user network to publish from")
	}
	return ports, nil
}

// openNets makes the network devices. The first user network publishes.
func (l *launch) openNets(nets []netOption, publish []usernet.Publish, cpus int) error {
	for i, n := range nets {
		cfg := virtionet.Config{MAC: n.mac, BitsPerSecond: n.bps, Name: fmt.Sprintf("net%d", i), Log: l.log}
		var err error
		if n.mode == "user" {
			err = l.openUserNet(&cfg, n, publish, i)
			publish = nil
		} else {
			err = l.openTap(&cfg, n, cpus)
		}
		if err != nil {
			return err
		}
		d, err := virtionet.New(cfg)
		if err != nil {
			return err
		}
		l.devices = append(l.devices, d)
	}
	return nil
}

func (l *launch) openUserNet(cfg *virtionet.Config, n netOption, publish []usernet.Publish, index int) error {
	group := ""
	if n.group != "" {
		// Members trust each other: the folder is below one that is the
		// user's alone. No machine's name begins with a dot.
		dir, err := control.OpenDir(control.DefaultPath())
		if err != nil {
			return fmt.Errorf("--net user,group=%s: %w", n.group, err)
		}
		group = filepath.Join(dir.Path(), ".groups", n.group)
	}
	u, err := usernet.New(usernet.Config{Publish: publish, Group: group, Hold: l.restores, Log: l.log})
	if err != nil {
		return fmt.Errorf("user network: %w", err)
	}
	l.onClose(u.Close)
	if l.network == nil {
		l.network, l.networkIndex = u, index
	}
	cfg.Backend, cfg.MTU = u, u.MTU()
	if cfg.MAC == nil {
		cfg.MAC = u.GuestMAC()
	}
	return nil
}

func (l *launch) openTap(cfg *virtionet.Config, n netOption, cpus int) error {
	t, err := tap.Open(tap.Config{Name: n.tap, Bridge: n.bridge, Queues: cpus})
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("--net: %w: run as root, let root make it for you (ip tuntap add dev NAME mode tap user $USER vnet_hdr), or use --net user", err)
	}
	if err != nil {
		return fmt.Errorf("--net: %w", err)
	}
	l.onClose(t.Close)
	cfg.Backend = t
	return nil
}
