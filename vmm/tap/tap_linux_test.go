package tap

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	virtionet "github.com/vitrine-vmm/vitrine/devices/virtio/net"
)

const inNamespace = "VITRINE_TEST_NAMESPACE"

// alone runs the rest of the test in a process with a network of its own, and
// reports whether this is that process.
func alone(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inNamespace) != "" {
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOSPC) {
		t.Skipf("no network namespace can be made here: %v", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Contains(string(out), "--- SKIP") {
		t.Skip(string(out))
	}
	return false
}

func mustOpen(t *testing.T, cfg Config) *Tap {
	t.Helper()
	dev, err := Open(cfg)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	return dev
}

// setAddress gives the host's side of the device an address in a /24.
func setAddress(t *testing.T, name string, ip [4]byte) {
	t.Helper()
	err := interfaceRequest(name, unix.SIOCSIFADDR, func(r *unix.Ifreq) {
		if err := r.SetInet4Addr(ip[:]); err != nil {
			t.Fatal(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

var (
	hostIP  = [4]byte{10, 77, 0, 1}
	guestIP = [4]byte{10, 77, 0, 2}
	// guestMAC is what the test answers ARP requests with.
	guestMAC = []byte{0x52, 0x54, 0, 0, 0, 1}
)

// udpFrame is a datagram from the guest whose checksum is left to the kernel.
func udpFrame(dstMAC net.HardwareAddr, port uint16, payload string) []byte {
	b := make([]byte, virtionet.HeaderLen+14+20+8, 200)
	h := virtionet.Header{Flags: virtionet.HeaderNeedsCsum, CsumStart: 34, CsumOffset: 6}
	h.Encode(b)
	be := binary.BigEndian
	eth, ip, udp := b[12:], b[26:], b[46:]
	copy(eth, dstMAC)
	copy(eth[6:], guestMAC)
	be.PutUint16(eth[12:], 0x0800)
	ip[0], ip[8], ip[9] = 0x45, 64, 17
	be.PutUint16(ip[2:], uint16(28+len(payload)))
	copy(ip[12:], guestIP[:])
	copy(ip[16:], hostIP[:])
	be.PutUint16(ip[10:], ^sum(ip[:20], 0))
	be.PutUint16(udp, 999)
	be.PutUint16(udp[2:], port)
	be.PutUint16(udp[4:], uint16(8+len(payload)))
	be.PutUint16(udp[6:], sum(ip[12:20], 17+8+uint32(len(payload)))) // of the pseudo-header
	return append(b, payload...)
}

func sum(b []byte, s uint32) uint16 {
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// next waits for a frame for the guest that pred likes, and answers ARP.
func next(t *testing.T, p virtionet.Port, pred func(eth []byte) bool) []byte {
	t.Helper()
	for {
		frame, err := p.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if frame == nil {
			if err := p.Wait(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		b := append([]byte(nil), frame[0]...)
		eth := b[virtionet.HeaderLen:]
		if pred(eth) {
			return b
		}
		if binary.BigEndian.Uint16(eth[12:]) == 0x0806 && string(eth[38:42]) == string(guestIP[:]) {
			answerARP(t, p, b)
		}
	}
}

func answerARP(t *testing.T, p virtionet.Port, b []byte) {
	t.Helper()
	eth := b[virtionet.HeaderLen:]
	hostMAC, hostAddr := append([]byte(nil), eth[22:28]...), append([]byte(nil), eth[28:32]...)
	copy(eth, hostMAC)
	copy(eth[6:], guestMAC)
	eth[21] = 2 // reply
	copy(eth[22:], guestMAC)
	copy(eth[28:], guestIP[:])
	copy(eth[32:], hostMAC)
	copy(eth[38:], hostAddr)
	if err := p.Send([][]byte{b}); err != nil {
		t.Fatal(err)
	}
}

func isUDP(eth []byte) bool {
	return binary.BigEndian.Uint16(eth[12:]) == 0x0800 && eth[23] == 17 && string(eth[26:30]) == string(hostIP[:])
}

func TestDatagramsBothWays(t *testing.T) {
	if !alone(t) {
		return
	}
	dev := mustOpen(t, Config{})
	setAddress(t, dev.Name(), hostIP)
	if err := dev.SetOffloads(virtionet.FeatureGuestCsum); err != nil {
		t.Fatal(err)
	}
	host, err := net.ListenPacket("udp", "10.77.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	host.SetDeadline(time.Now().Add(20 * time.Second))
	i, err := net.InterfaceByName(dev.Name())
	if err != nil {
		t.Fatal(err)
	}
	frame := udpFrame(i.HardwareAddr, uint16(host.LocalAddr().(*net.UDPAddr).Port), "question")
	p := dev.Ports()[0]
	if err := p.Send([][]byte{frame[:12], frame[12:40], frame[40:]}); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	k, from, err := host.ReadFrom(buf)
	if err != nil || string(buf[:k]) != "question" {
		t.Fatalf("host read %q, %v", buf[:k], err)
	}
	if _, err := host.WriteTo([]byte("answer"), from); err != nil {
		t.Fatal(err)
	}
	got := next(t, p, isUDP)
	if !strings.HasSuffix(string(got), "answer") {
		t.Errorf("guest read % x", got)
	}
	var h virtionet.Header
	if h.Decode(got); h.Flags&virtionet.HeaderNeedsCsum == 0 {
		t.Error("the kernel computed a checksum that the guest does not need")
	}
}

func TestNoOffloadsUnlessTaken(t *testing.T) {
	if !alone(t) {
		return
	}
	dev := mustOpen(t, Config{})
	setAddress(t, dev.Name(), hostIP)
	host, err := net.Dial("udp", "10.77.0.2:999")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	if _, err := host.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	var h virtionet.Header
	if h.Decode(next(t, dev.Ports()[0], isUDP)); h.Flags&virtionet.HeaderNeedsCsum != 0 {
		t.Error("the guest got a frame without checksum")
	}
}

func TestWakeEndsWait(t *testing.T) {
	if !alone(t) {
		return
	}
	p := mustOpen(t, Config{}).Ports()[0]
	for frame, err := p.Recv(); frame != nil || err != nil; frame, err = p.Recv() {
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		go p.Wake()
		if err := p.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Send([][]byte{make([]byte, 100)}); err != nil {
		t.Errorf("send after a wake: %v", err)
	}
}

func TestQueuesAndBridge(t *testing.T) {
	if !alone(t) {
		return
	}
	if _, err := Open(Config{Name: "vtest0", Bridge: "nobridge"}); err == nil || !strings.Contains(err.Error(), "no such bridge") {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
			t.Skip(err)
		}
		t.Errorf("bridge that does not exist: %v", err)
	}
	if err := addBridge("br-test"); err != nil {
		t.Skipf("make a bridge: %v", err)
	}
	dev := mustOpen(t, Config{Name: "vtest%d", Bridge: "br-test", Queues: 4, MTU: 9000})
	if i, err := net.InterfaceByName(dev.Name()); err != nil || i.MTU != 9000 || i.Flags&net.FlagUp == 0 || dev.Name() != "vtest0" {
		t.Errorf("device %s is %v, %v", dev.Name(), i, err)
	}
	for _, n := range []int{1, 4, 2, 2, 4} {
		if err := dev.SetPairs(n); err != nil {
			t.Errorf("SetPairs(%d): %v", n, err)
		}
	}
	second := mustOpen(t, Config{Bridge: "br-test"})
	if _, err := Open(Config{Name: second.Name()}); err == nil || !strings.Contains(err.Error(), "another process uses it") {
		t.Errorf("a device twice: %v", err)
	}
	if _, err := Open(Config{Name: "lo"}); err == nil || !strings.Contains(err.Error(), "not a TAP device") {
		t.Errorf("lo as a TAP device: %v", err)
	}
	if _, err := Open(Config{Bridge: "lo"}); err == nil || !strings.Contains(err.Error(), "not a bridge") {
		t.Errorf("lo as a bridge: %v", err)
	}
	dev.Close()
	if _, err := net.InterfaceByName("vtest0"); err == nil {
		t.Error("the device outlives Close")
	}
}

// TestExistingDevices opens devices that root made with one queue and with
// several, whatever the number of queues that is asked for.
func TestExistingDevices(t *testing.T) {
	if !alone(t) {
		return
	}
	mustOpen(t, Config{}).Close() // or skip
	for name, c := range map[string]struct {
		options []string
		want    [2]int // ports when 1 and when 4 are asked for
	}{"single0": {[]string{"vnet_hdr"}, [2]int{1, 1}}, "multi0": {[]string{"vnet_hdr", "multi_queue"}, [2]int{1, 4}}} {
		args := append([]string{"tuntap", "add", "dev", name, "mode", "tap"}, c.options...)
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Skipf("ip %v: %v: %s", args, err, out)
		}
		for i, queues := range []int{1, 4} {
			dev, err := Open(Config{Name: name, Queues: queues})
			if err != nil {
				t.Errorf("%s with %d queues: %v", name, queues, err)
				continue
			}
			if n := len(dev.Ports()); n != c.want[i] {
				t.Errorf("%s with %d queues: %d ports, want %d", name, queues, n, c.want[i])
			}
			if err := errors.Join(dev.SetPairs(1), dev.SetPairs(len(dev.Ports())), dev.Close()); err != nil {
				t.Errorf("%s with %d queues: %v", name, queues, err)
			}
			if _, err := net.InterfaceByName(name); err != nil {
				t.Errorf("%s went with Close: %v", name, err)
			}
		}
	}
}

// addBridge makes a bridge in the namespace.
func addBridge(name string) error {
	out, err := exec.Command("ip", "link", "add", name, "type", "bridge").CombinedOutput()
	if err != nil {
		return errors.New(strings.TrimSpace(string(out)) + ": " + err.Error())
	}
	return nil
}

func TestConfigMistakes(t *testing.T) {
	for name, cfg := range map[string]Config{
		"queues": {Queues: 257}, "negative": {Queues: -1}, "long name": {Name: strings.Repeat("x", 16)},
	} {
		if dev, err := Open(cfg); err == nil {
			dev.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}
