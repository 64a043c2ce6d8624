//go:build linux && amd64

package kvm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
)

// ioapicPins is the number of interrupt lines of KVM's I/O APIC; GSIs from
// there on are message-signalled.
const (
	ioapicPins = 24
	picPins    = 16
	firstMSI   = ioapicPins
)

// Line returns a function that pulses the line gsi (an edge) through an irqfd
// (api.rst 4.75): a write of 8 bytes, no ioctl.
func (vm *VM) Line(gsi uint32) (func() error, error) {
	if gsi >= ioapicPins {
		return nil, fmt.Errorf("interrupt line %d: the I/O APIC has %d", gsi, ioapicPins)
	}
	fd, err := vm.irqfd(gsi)
	if err != nil {
		return nil, err
	}
	return func() error { return signal(fd) }, nil
}

func (vm *VM) irqfd(gsi uint32) (int, error) {
	fd, err := vm.eventfd()
	if err != nil {
		return -1, err
	}
	arg := [32]byte{}
	binary.NativeEndian.PutUint32(arg[0:], uint32(fd))
	binary.NativeEndian.PutUint32(arg[4:], gsi)
	if _, err := ioctlPtr(vm.fd, ioIRQFD, &arg); err != nil {
		return -1, fmt.Errorf("KVM_IRQFD gsi %d: %w", gsi, err)
	}
	return fd, nil
}

func (vm *VM) eventfd() (int, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return -1, fmt.Errorf("eventfd: %w", err)
	}
	vm.mu.Lock()
	vm.fds = append(vm.fds, fd)
	vm.mu.Unlock()
	return fd, nil
}

var one = binary.NativeEndian.AppendUint64(nil, 1)

// signal adds one to an event fd. EAGAIN means that the counter is full of
// signals nobody has taken: one more changes nothing.
func signal(fd int) error {
	for {
		_, err := unix.Write(fd, one)
		switch err {
		case nil, unix.EAGAIN:
			return nil
		case unix.EINTR:
		default:
			return fmt.Errorf("signal event fd: %w", err)
		}
	}
}

// MSI is one message-signalled interrupt: a GSI of its own with an irqfd, its
// message in KVM's routing table.
type MSI struct {
	vm    *VM
	index int
	fd    int
}

type route struct {
	used, set bool
	addr      uint64
	data      uint32
}

// NewMSI returns a message-signalled interrupt that does nothing until Set.
func (vm *VM) NewMSI() (*MSI, error) {
	vm.mu.Lock()
	index := -1
	for i := range vm.routes {
		if !vm.routes[i].used {
			index = i
		}
	}
	if index < 0 {
		index = len(vm.routes)
		vm.routes = append(vm.routes, route{})
	}
	vm.routes[index] = route{used: true}
	vm.mu.Unlock()
	fd, err := vm.eventfd()
	if err != nil {
		return nil, err
	}
	m := &MSI{vm: vm, index: index, fd: fd}
	arg := [32]byte{}
	binary.NativeEndian.PutUint32(arg[0:], uint32(fd))
	binary.NativeEndian.PutUint32(arg[4:], uint32(firstMSI+index))
	if _, err := ioctlPtr(vm.fd, ioIRQFD, &arg); err != nil {
		return nil, fmt.Errorf("KVM_IRQFD msi %d: %w", index, err)
	}
	return m, nil
}

// Set gives the interrupt its message: the address and data that the guest
// wrote to the device's MSI-X table.
func (m *MSI) Set(addr uint64, data uint32) error {
	m.vm.mu.Lock()
	defer m.vm.mu.Unlock()
	r := route{used: true, set: true, addr: addr, data: data}
	if m.vm.routes[m.index] == r {
		return nil
	}
	m.vm.routes[m.index] = r
	return m.vm.updateRoutes()
}

// Fire delivers the interrupt once.
func (m *MSI) Fire() error { return signal(m.fd) }

// Close frees the interrupt's place in the routing table; the event fd is
// closed with the machine.
func (m *MSI) Close() error {
	m.vm.mu.Lock()
	defer m.vm.mu.Unlock()
	m.vm.routes[m.index] = route{}
	return m.vm.updateRoutes()
}

// Kinds of route and chips (KVM_IRQ_ROUTING_*, KVM_IRQCHIP_*).
const (
	routeIRQChip = 1
	routeMSI     = 2
	chipPIC0     = 0
	chipPIC1     = 1
	chipIOAPIC   = 2
	routeSize    = 48
)

// updateRoutes hands KVM the whole table: setting one replaces it, so the
// default routes of the lines (as KVM itself sets them up: GSI n to pin n of
// the I/O APIC, below 16 to the PICs too) are in it again (api.rst 4.52).
func (vm *VM) updateRoutes() error {
	b := make([]byte, 8, 8+(ioapicPins+picPins+len(vm.routes))*routeSize)
	n := uint32(0)
	add := func(gsi, kind uint32, w0, w1, w2 uint32) {
		e := [routeSize]byte{}
		for i, w := range []uint32{gsi, kind, 0, 0, w0, w1, w2} {
			binary.NativeEndian.PutUint32(e[4*i:], w)
		}
		b = append(b, e[:]...)
		n++
	}
	for pin := uint32(0); pin < ioapicPins; pin++ {
		if pin < picPins {
			add(pin, routeIRQChip, chipPIC0+pin/8, pin%8, 0)
		}
		add(pin, routeIRQChip, chipIOAPIC, pin, 0)
	}
	for i, r := range vm.routes {
		if r.set {
			add(uint32(firstMSI+i), routeMSI, uint32(r.addr), uint32(r.addr>>32), r.data)
		}
	}
	binary.NativeEndian.PutUint32(b, n)
	if _, err := ioctlBytes(vm.fd, ioSetGSIRouting, b); err != nil {
		return fmt.Errorf("KVM_SET_GSI_ROUTING: %w", err)
	}
	return nil
}

// eventBell is a doorbell over an event fd: the guest's write signals it
// inside KVM, and the waiting goroutine is woken by Go's poller.
type eventBell struct {
	vm  *VM
	arg [64]byte // struct kvm_ioeventfd
	f   *os.File
	fd  int
	buf [8]byte
}

var (
	_ virtio.Doorbell = (*eventBell)(nil)
	_ io.Closer       = (*eventBell)(nil)
)

func (b *eventBell) Wait() error {
	_, err := b.f.Read(b.buf[:])
	return err
}

func (b *eventBell) Ring() { _ = signal(b.fd) }

// Close takes the doorbell from its address. Nobody may wait on it.
func (b *eventBell) Close() error {
	b.vm.mu.Lock()
	defer b.vm.mu.Unlock()
	i := slices.Index(b.vm.bells, b)
	if i < 0 {
		return nil // closed with the machine
	}
	b.vm.bells = slices.Delete(b.vm.bells, i, i+1)
	flags := binary.NativeEndian.Uint32(b.arg[24:])
	binary.NativeEndian.PutUint32(b.arg[24:], flags|ioeventDeassign)
	_, err := ioctlPtr(b.vm.fd, ioIOEventFD, &b.arg)
	if err != nil {
		err = fmt.Errorf("KVM_IOEVENTFD: deassign: %w", err)
	}
	return errors.Join(err, b.f.Close())
}

// Flags of KVM_IOEVENTFD.
const (
	ioeventDatamatch = 1 << 0
	ioeventPIO       = 1 << 1
	ioeventDeassign  = 1 << 2
)

// Doorbell returns a doorbell that a guest's write to addr rings (api.rst
// 4.59). width is 0 (any), 1, 2, 4 or 8 bytes; with match only that value
// rings it. ok is always true: KVM_CAP_IOEVENTFD is required.
func (vm *VM) Doorbell(pio bool, addr uint64, width int, match *uint64) (d virtio.Doorbell, ok bool, err error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, false, fmt.Errorf("eventfd: %w", err)
	}
	arg := [64]byte{}
	var flags uint32
	if match != nil {
		flags |= ioeventDatamatch
		binary.NativeEndian.PutUint64(arg[0:], *match)
	}
	if pio {
		flags |= ioeventPIO
	}
	binary.NativeEndian.PutUint64(arg[8:], addr)
	binary.NativeEndian.PutUint32(arg[16:], uint32(width))
	binary.NativeEndian.PutUint32(arg[20:], uint32(fd))
	binary.NativeEndian.PutUint32(arg[24:], flags)
	if _, err := ioctlPtr(vm.fd, ioIOEventFD, &arg); err != nil {
		_ = unix.Close(fd)
		return nil, false, fmt.Errorf("KVM_IOEVENTFD at %#x: %w", addr, err)
	}
	b := &eventBell{vm: vm, arg: arg, f: os.NewFile(uintptr(fd), "doorbell"), fd: fd}
	vm.mu.Lock()
	vm.bells = append(vm.bells, b)
	vm.mu.Unlock()
	return b, true, nil
}
