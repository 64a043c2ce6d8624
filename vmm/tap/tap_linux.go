package tap

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	virtionet "github.com/vitrine-vmm/vitrine/devices/virtio/net"
)

const devicePath = "/dev/net/tun"

// Tap is an open TAP device. A device that Open made goes with Close; one that
// existed stays.
type Tap struct {
	name  string
	files []*os.File // one for each queue
	ports []virtionet.Port

	mu       sync.Mutex
	attached int // queues, from the first, that get frames
	offloads uint64
}

var _ virtionet.Backend = (*Tap)(nil)

// Open makes a TAP device or opens an existing one, brings it up, and attaches
// it to a bridge. Making one needs CAP_NET_ADMIN; using one that its owner made
// for the caller's user needs nothing.
func Open(cfg Config) (*Tap, error) {
	if cfg.Queues == 0 {
		cfg.Queues = 1
	}
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("open TAP device: %w", err)
	}
	t := &Tap{name: cfg.Name, attached: cfg.Queues}
	if t.name == "" {
		t.name = "vitrine%d"
	}
	if err := t.open(cfg); err != nil {
		t.Close()
		return nil, fmt.Errorf("open TAP device %s: %w", t.name, err)
	}
	return t, nil
}

func (cfg *Config) check() error {
	if cfg.Queues < 1 || cfg.Queues > maxQueues {
		return fmt.Errorf("%d queues: want 1 to %d", cfg.Queues, maxQueues)
	}
	for _, name := range []string{cfg.Name, cfg.Bridge} {
		if len(name) >= unix.IFNAMSIZ {
			return fmt.Errorf("interface name %q: want at most %d characters", name, unix.IFNAMSIZ-1)
		}
	}
	return nil
}

func (t *Tap) open(cfg Config) error {
	multi, queues := cfg.Queues > 1, cfg.Queues
	for i := 0; i < queues; i++ {
		f, err := t.openQueue(multi)
		if i == 0 && errors.Is(err, unix.EINVAL) {
			// A device that exists is of one kind or the other, and a
			// machine works with either.
			multi = !multi
			if f, err = t.openQueue(multi); !multi {
				queues, t.attached = 1, 1
			}
		}
		if err != nil {
			return err
		}
		t.files = append(t.files, f)
		p, err := virtionet.NewFilePort(f)
		if err != nil {
			return err
		}
		t.ports = append(t.ports, p)
	}
	if cfg.MTU != 0 {
		if err := setMTU(t.name, cfg.MTU); err != nil {
			return explain(err, "set the MTU")
		}
	}
	if cfg.Bridge != "" {
		if err := attach(cfg.Bridge, t.name); err != nil {
			return err
		}
	}
	if err := bringUp(t.name); err != nil {
		return explain(err, "bring it up")
	}
	return nil
}

// openQueue opens one queue; the first one settles the name.
func (t *Tap) openQueue(multi bool) (*os.File, error) {
	fd, err := unix.Open(devicePath, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, explainDevice(err)
	}
	if err := t.setUp(fd, multi); err != nil {
		unix.Close(fd)
		return nil, err
	}
	// The runtime may poll the file only now that it has a device behind it.
	return os.NewFile(uintptr(fd), t.name), nil
}

func (t *Tap) setUp(fd int, multi bool) error {
	ifr, err := unix.NewIfreq(t.name)
	if err != nil {
		return err
	}
	flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if multi {
		flags |= unix.IFF_MULTI_QUEUE
	}
	ifr.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return explainAttach(err, t.name, multi)
	}
	t.name = ifr.Name()
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, virtionet.HeaderLen); err != nil {
		return fmt.Errorf("set the header's size: %w", err)
	}
	return setOffloads(fd, 0)
}

func explainDevice(err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("open %s: %w: load the kernel module: modprobe tun", devicePath, err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("open %s: %w: make it accessible (chmod 0666 %s is the usual mode), or use --net user", devicePath, err, devicePath)
	}
	return fmt.Errorf("open %s: %w", devicePath, err)
}

func explainAttach(err error, name string, multi bool) error {
	options := "vnet_hdr"
	if multi {
		options += " multi_queue"
	}
	switch {
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: without CAP_NET_ADMIN the device must exist: "+
			"let root run: ip tuntap add dev NAME mode tap user $USER %s; or use --net user", err, options)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: another process uses it", err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w: %s is not a TAP device made with the options %s", err, name, options)
	}
	return err
}

// explain adds what to do about an operation that needs a privilege.
func explain(err error, what string) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%s: %w: let root do it beforehand with ip link", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Name is the device's name on the host.
func (t *Tap) Name() string { return t.name }

// Close releases the device.
func (t *Tap) Close() error {
	var first error
	for _, f := range t.files {
		if err := f.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// Offloads implements virtionet.Backend: the kernel does them all.
func (t *Tap) Offloads() uint64 { return virtionet.Offloads }

// Ports implements virtionet.Backend.
func (t *Tap) Ports() []virtionet.Port { return t.ports }

// SetOffloads implements virtionet.Backend.
func (t *Tap) SetOffloads(offloads uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.offloads = offloads
	return t.control(0, func(fd int) error { return setOffloads(fd, tunOffloads(offloads)) })
}

// tunOffloads are the TUN_F flags for what the guest takes.
func tunOffloads(offloads uint64) int {
	flags := 0
	for feature, flag := range map[uint64]int{
		virtionet.FeatureGuestCsum: unix.TUN_F_CSUM, virtionet.FeatureGuestTSO4: unix.TUN_F_TSO4,
		virtionet.FeatureGuestTSO6: unix.TUN_F_TSO6, virtionet.FeatureGuestECN: unix.TUN_F_TSO_ECN,
	} {
		if offloads&feature != 0 {
			flags |= flag
		}
	}
	if flags&unix.TUN_F_CSUM == 0 { // the kernel ties segmentation to it
		return 0
	}
	return flags
}

func setOffloads(fd, flags int) error {
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, flags); err != nil {
		return fmt.Errorf("set offloads %#x: %w", flags, err)
	}
	return nil
}

// SetPairs implements virtionet.Backend: queues that the driver does not use
// get no frames.
func (t *Tap) SetPairs(n int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for n < t.attached && t.attached > 1 {
		if err := t.attachQueue(t.attached-1, unix.IFF_DETACH_QUEUE); err != nil {
			return fmt.Errorf("detach queue %d: %w", t.attached-1, err)
		}
		t.attached--
	}
	for t.attached < n && t.attached < len(t.files) {
		if err := t.attachQueue(t.attached, unix.IFF_ATTACH_QUEUE); err != nil {
			return fmt.Errorf("attach queue %d: %w", t.attached, err)
		}
		t.attached++
	}
	return nil
}

func (t *Tap) attachQueue(i int, flag uint16) error {
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return err
	}
	ifr.SetUint16(flag)
	return t.control(i, func(fd int) error { return unix.IoctlIfreq(fd, unix.TUNSETQUEUE, ifr) })
}

// control runs f on queue i's descriptor, which stays open meanwhile.
func (t *Tap) control(i int, f func(fd int) error) error {
	raw, err := t.files[i].SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := raw.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}
