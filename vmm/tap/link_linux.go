package tap

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// interfaceRequest issues a network interface ioctl (netdevice(7)) for name.
func interfaceRequest(name string, request uint, fill func(*unix.Ifreq)) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	fill(ifr)
	return unix.IoctlIfreq(s, request, ifr)
}

// bringUp sets IFF_UP, unless it is: a device that root made for the user is
// up already and may not be changed.
func bringUp(name string) error {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	if i.Flags&net.FlagUp != 0 {
		return nil
	}
	return interfaceRequest(name, unix.SIOCSIFFLAGS, func(r *unix.Ifreq) { r.SetUint16(unix.IFF_UP) })
}

func setMTU(name string, mtu int) error {
	i, err := net.InterfaceByName(name)
	if err != nil || i.MTU == mtu {
		return err
	}
	return interfaceRequest(name, unix.SIOCSIFMTU, func(r *unix.Ifreq) { r.SetUint32(uint32(mtu)) })
}

// attach makes name a port of the bridge.
func attach(bridge, name string) error {
	i, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	err = interfaceRequest(bridge, unix.SIOCBRADDIF, func(r *unix.Ifreq) { r.SetUint32(uint32(i.Index)) })
	switch {
	case errors.Is(err, unix.EBUSY): // root may have attached it
		if isPort(bridge, name) {
			return nil
		}
		return fmt.Errorf("attach it to bridge %s: %w: it belongs to another bridge", bridge, err)
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("attach it to bridge %s: there is no such bridge: ip link add %s type bridge", bridge, bridge)
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("attach it to bridge %s: that is not a bridge", bridge)
	case errors.Is(err, unix.EPERM) && isPort(bridge, name):
		return nil
	case err != nil:
		return explain(err, "attach it to bridge "+bridge)
	}
	return nil
}

// isPort says whether the bridge has the port already.
func isPort(bridge, name string) bool {
	var st unix.Stat_t
	return unix.Stat("/sys/class/net/"+bridge+"/brif/"+name, &st) == nil
}
