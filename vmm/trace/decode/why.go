package decode

import "strings"

// whys says of each kind of event what causes it and what would avoid it.
var whys = map[string]string{
	"io serial":        "The guest's serial driver writes a register of the UART; each access leaves the guest. A kernel prints fewer characters with quiet, and a virtio console takes a whole line at once.",
	"io rtc":           "The guest reads the clock chip for the date, two accesses a register. A kernel does so at boot and when it sets the clock; kvm-clock spares the rest.",
	"io i8042":         "The guest looks for a keyboard controller. i8042.noaux, or a kernel without the driver, avoids it.",
	"io debugport":     "The default guest says how far it has got (docs/debug-port.md): a handful of times a boot.",
	"io pvpanic":       "The guest looks for the panic device, or reports a panic of its own.",
	"io acpi":          "The guest uses the machine's power management: sleep, reset or an event.",
	"io pci-ports":     "The guest reads PCI configuration space by port, two exits a register. ECAM needs one, and virtio-mmio (--transport mmio) none.",
	"mmio pci-ecam":    "The guest reads PCI configuration space, one exit a register, while it looks for devices. virtio-mmio (--transport mmio) needs no such search.",
	"mmio virtio-mmio": "A virtio driver sets its device up by registers, each access an exit. In operation only interrupts are acknowledged this way; notifications ring an ioeventfd and do not show here, unless the machine runs with --notify exit.",
	"mmio virtio-pci":  "A virtio driver sets its device up by registers in a BAR, each access an exit. In operation interrupts are MSI-X and nothing is read.",
	"nowhere":          "The guest accesses an address where this machine has nothing: it looks for hardware that is not there. Reads give all ones. A kernel without those drivers does not ask.",
	"exit":             "The CPU left the guest for another reason than an access.",
	"complete":         "The host's KVM cannot emulate this instruction and the VMM executed it: this host emulates guest kernels. On ordinary hosts the processor executes it; --accel soft has no such exits.",
	"rdmsr":            "The guest reads a model-specific register. On KVM the kernel answers and nothing shows; the software CPU tells of each.",
	"wrmsr":            "The guest writes a model-specific register: a timer deadline, a segment base, a feature switch.",
	"cpuid":            "The guest asks what its processor can do. Always intercepted under virtualisation; kernels ask a few hundred times at boot and then seldom.",
	"irq":              "A device raises an interrupt: for a virtqueue, since requests are done and the driver wants to know. EVENT_IDX lets a driver ask for fewer.",
	"doorbell":         "The driver notified the device, and the device was asleep. While it works, more requests need no notification.",
	"pop block":        "The driver wants something of its disk. Larger requests make fewer of these; the page cache in the guest makes none.",
	"push block":       "The disk's answer. What lies between is the host's storage.",
	"pop net":          "The driver sends a frame, or offers a buffer for one. Segmentation offload makes one large frame of many.",
	"push net":         "A frame was sent or received. Receiving several before one interrupt is the backend's batching.",
	"pop vsock":        "The guest's socket to the host sends a packet or offers a buffer: the agent's connection, and vitrine exec's.",
	"push vsock":       "A packet of a socket between host and guest.",
	"pop console":      "The guest writes to its virtio console: a whole buffer at once.",
	"push console":     "The console took the buffer, or gave input.",
	"pop entropy":      "The guest asks for random bytes.",
	"push entropy":     "Random bytes were given.",
	"pop balloon":      "The guest's balloon driver gives pages, wants them back, or reports.",
	"vector":           "The processor raises an exception, and the guest's handler runs. Page faults are how a kernel gives memory to programs.",
	"injected":         "An interrupt controller interrupts the CPU: a timer's tick or a device's.",
	"halt":             "The CPU has nothing to do and waits for an interrupt; it costs nothing until then.",
	"input":            "Somebody typed, or standard input had something for the serial port.",
	"unknown":          "The guest executes an instruction that this software CPU does not claim to have (CPUID tells a guest) and gets #UD, as on a processor without it.",
	"instruction":      "One instruction of the guest's, as the software CPU executes it.",
}

// Explainer gives each kind of event a sentence, once.
type Explainer struct{ seen map[string]bool }

// Why is the sentence for the line's kind, at its first sight; else "".
func (e *Explainer) Why(l *Line) string {
	if e.seen == nil {
		e.seen = make(map[string]bool)
	}
	if e.seen[l.why] {
		return ""
	}
	e.seen[l.why] = true
	return l.Why()
}

// Why is the sentence for the line's kind, "" if there is none.
func (l *Line) Why() string {
	if s := whys[l.why]; s != "" {
		return s
	}
	kind, _, _ := strings.Cut(l.why, " ")
	return whys[kind]
}
