package vmm

import (
	"context"
	"io"
	"sync"
	"sync/atomic"

	"github.com/vitrine-vmm/vitrine/boot/acpi"
	"github.com/vitrine-vmm/vitrine/devices/acpipm"
	"github.com/vitrine-vmm/vitrine/devices/bus"
	"github.com/vitrine-vmm/vitrine/devices/debugport"
	"github.com/vitrine-vmm/vitrine/devices/i8042"
	"github.com/vitrine-vmm/vitrine/devices/pci"
	"github.com/vitrine-vmm/vitrine/devices/pvpanic"
	"github.com/vitrine-vmm/vitrine/devices/rtc"
	"github.com/vitrine-vmm/vitrine/devices/serial"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// platform is the chips that every machine has, whatever devices it is given.
type platform struct {
	uart    *serial.UART
	i8042   *i8042.Controller
	rtc     *rtc.Device
	marks   *debugport.Device
	pvpanic *pvpanic.Device
	pm      *acpipm.Device
	pci     *pci.Host // nil without the PCI transport
	console consoleWatch

	orderly  atomic.Bool // the default guest announced a reboot
	stopFeed context.CancelCauseFunc
	feeding  sync.WaitGroup
}

// addPlatform places the chips of a PC: the whole list of ports and lines.
func (m *Machine) addPlatform() error {
	p := &m.platform
	p.console = consoleWatch{out: m.cfg.Console.Out, first: func() { m.times.mark(PhaseFirstByte) }, hangs: m.hangs}
	com1, err := m.vm.Line(gsiCOM1)
	if err != nil {
		return err
	}
	sci, err := m.vm.Line(gsiSCI)
	if err != nil {
		return err
	}
	com1, sci = m.watchLine(gsiCOM1, com1), m.watchLine(gsiSCI, sci)
	low := min(m.cfg.Memory, uint64(memory.HoleStart))
	p.uart = serial.New(&p.console, com1)
	p.i8042 = i8042.New(m.reset)
	p.rtc = rtc.New(m.cfg.Clock, low, m.cfg.Memory-low)
	p.marks = debugport.New(m.mark)
	p.pvpanic = pvpanic.New(m.panicked)
	p.pm = acpipm.New(acpipm.Config{PowerOff: func() { m.end(nil) }, Reset: m.reset, IRQ: sci})
	chips := []struct {
		base, size uint64
		name       string
		dev        bus.Device
	}{
		{portCOM1, serial.Size, "COM1", p.uart},
		{portI8042, i8042.Size, "i8042", p.i8042},
		{portRTC, rtc.Size, "RTC", p.rtc},
		{debugport.Port, debugport.Size, "debug port", p.marks},
		{pvpanic.Port, pvpanic.Size, "pvpanic", p.pvpanic},
		{acpipm.Port, acpipm.Size, "ACPI", p.pm},
	}
	for _, c := range chips {
		if err := m.pio.Map(bus.Range{Base: c.base, Size: c.size, Name: c.name}, c.dev); err != nil {
			return err
		}
	}
	if m.cfg.Transport == TransportPCI {
		return m.addPCIHost()
	}
	return nil
}

func (m *Machine) addPCIHost() error {
	p := &m.platform
	p.pci = pci.NewHost(m.mmio, pci.Window{Base: pciWindow, Size: pciWindowSize})
	if err := m.pio.Map(bus.Range{Base: portPCI, Size: 8, Name: "PCI"}, p.pci.Ports()); err != nil {
		return err
	}
	return m.mmio.Map(bus.Range{Base: pciECAM, Size: pciECAMSize, Name: "PCI ECAM"}, p.pci.ECAM())
}

// acpiConfig describes the machine for the ACPI tables; nil without them.
func (m *Machine) acpiConfig() *acpi.Config {
	if !m.cfg.ACPI {
		return nil
	}
	c := &acpi.Config{CPUs: m.cfg.CPUs, COM1: true, RTC: true, I8042: true, PVPanic: true, Generation: &m.cfg.Generation}
	for _, s := range m.virtio {
		if s.base != 0 {
			c.VirtioMMIO = append(c.VirtioMMIO, acpi.VirtioMMIO{Addr: memory.Addr(s.base), Size: virtioMMIOSize, GSI: s.gsi})
		}
	}
	if m.platform.pci != nil {
		c.PCI = &acpi.PCI{ECAM: pciECAM, Window: acpi.Range{Base: pciWindow, Size: pciWindowSize}, ConfigIO: true}
	}
	return c
}

// mark is a write to the debug port (docs/debug-port.md).
func (m *Machine) mark(b uint8) {
	switch b {
	case debugport.MarkUserSpace:
		m.times.mark(PhaseUserSpace)
	case debugport.MarkAgent:
		m.times.mark(PhaseAgent)
	case debugport.MarkReboot:
		m.platform.orderly.Store(true)
	}
	if m.cfg.OnMark != nil {
		m.cfg.OnMark(b)
	}
	if b == debugport.MarkPowerOff {
		m.end(nil)
	}
}

// reset is the guest pulling the reset line. A kernel that panics with a
// "panic=" timeout does so too, right after it has said why on its console.
func (m *Machine) reset() {
	if line := m.platform.console.panicLine(); line != "" && !m.platform.orderly.Load() {
		m.end(&StopError{Cause: CausePanic, VCPU: -1, Detail: line})
		return
	}
	m.end(&StopError{Cause: CauseReboot, VCPU: -1})
}

// panicked is the guest kernel reporting its own panic.
func (m *Machine) panicked(events uint8) {
	if events&pvpanic.Panicked == 0 {
		return // it deals with the crash by itself
	}
	detail := m.platform.console.panicLine()
	if detail == "" {
		detail = "reported by the guest kernel through pvpanic; its console may say more"
	}
	m.end(&StopError{Cause: CausePanic, VCPU: -1, Detail: detail})
}

// hangs is the guest kernel saying on its console that it has panicked and does
// nothing more. Linux writes its console without interrupts of the UART's
// (serial8250_console_write clears IER): what a program writes there, such as a
// log with the same words, does not go out so.
func (m *Machine) hangs(reason string) {
	if reason != "" && m.platform.uart.Polled() {
		m.end(&StopError{Cause: CausePanic, VCPU: -1, Detail: reason})
	}
}

// PowerButton presses the machine's power button: a guest kernel with ACPI
// shuts down.
func (m *Machine) PowerButton() error { return m.platform.pm.PowerButton() }

// startIO begins to give the console's input to the guest.
func (m *Machine) startIO() {
	p := &m.platform
	ctx, stop := context.WithCancelCause(context.Background())
	p.stopFeed = stop
	if in := m.cfg.Console.In; in != nil && !m.cfg.Deterministic {
		p.feeding.Go(func() {
			if err := p.uart.Feed(ctx, in); err != nil && ctx.Err() == nil {
				m.cfg.Log.Warn("console input ended", "error", err)
			}
		})
	}
}

// stopIO ends the devices. A read of the console's input that blocks goes on
// until its reader returns; what it returns is lost.
func (m *Machine) stopIO() {
	m.platform.stopFeed(errStopped)
}

// consoleWatch is the console's output on its way out: it notes when the guest
// first says something, and the line that a Linux kernel panics with.
type consoleWatch struct {
	out   io.Writer // nil: nobody listens
	first func()
	hangs func(reason string) // the kernel has panicked and does nothing more
	begun bool
	last  [len(panicEnd)]byte

	mu     sync.Mutex
	taking bool   // the rest of the line is the reason
	ending bool   // the rest of the line is the reason again, and the last that is said
	line   []byte // the reason
}

// panicPrefix is what panic() in Linux's kernel/panic.c prints before the
// reason, and panicEnd the same where no "panic=" timeout is set, so that it
// goes on doing nothing for ever.
const (
	panicPrefix = "Kernel panic - not syncing: "
	panicEnd    = "---[ end " + panicPrefix
)

func (w *consoleWatch) Write(p []byte) (int, error) {
	if !w.begun {
		w.begun = true
		w.first()
	}
	for _, b := range p {
		w.look(b)
	}
	if w.out == nil {
		return len(p), nil
	}
	return w.out.Write(p)
}

func (w *consoleWatch) look(b byte) {
	copy(w.last[:], w.last[1:])
	w.last[len(w.last)-1] = b
	switch {
	case w.taking:
		w.take(b)
	case w.ending && b == '\n':
		w.ending = false
		w.hangs(w.panicLine())
	case b == ' ' && string(w.last[:]) == panicEnd:
		w.ending = true
	case b == ' ' && string(w.last[len(panicEnd)-len(panicPrefix):]) == panicPrefix:
		w.mu.Lock()
		w.taking, w.line = true, nil
		w.mu.Unlock()
	}
}

func (w *consoleWatch) take(b byte) {
	const longest = 200
	w.mu.Lock()
	defer w.mu.Unlock()
	if b == '\n' || b == '\r' || len(w.line) == longest {
		w.taking = false
		return
	}
	w.line = append(w.line, b)
}

// panicLine is the reason of the last panic that the console told of, or "".
func (w *consoleWatch) panicLine() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.line)
}
