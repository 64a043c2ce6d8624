//go:build linux

package vmm_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	virtionet "github.com/vitrine-vmm/vitrine/devices/virtio/net"
	guestimages "github.com/vitrine-vmm/vitrine/guest-images"
	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
	"github.com/vitrine-vmm/vitrine/vmm/tap"
	"github.com/vitrine-vmm/vitrine/vmm/usernet"
)

// userNetwork is a network with a TCP and a UDP port of the guest's published.
func userNetwork(t testing.TB) (n *usernet.Network, dev virtio.Device) {
	t.Helper()
	any := netip.MustParseAddrPort("127.0.0.1:0")
	n, err := usernet.New(usernet.Config{Publish: []usernet.Publish{{Host: any, Guest: 7000}, {Host: any, Guest: 7001, UDP: true}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	if dev, err = virtionet.New(virtionet.Config{Backend: n, MAC: n.GuestMAC(), MTU: n.MTU()}); err != nil {
		t.Fatal(err)
	}
	return n, dev
}

// addressed is the command line that gives eth0 its address.
func addressed(n *usernet.Network) string {
	return fmt.Sprintf("%seth0:%v/%d %s%v %s%v", guestimages.ParamIP, n.GuestIP(), n.Subnet().Bits(),
		guestimages.ParamGateway, n.Gateway(), guestimages.ParamDNS, n.DNS())
}

func TestGuestUserNetwork(t *testing.T) {
	eachTransport(t, func(t *testing.T, transport vmm.Transport) {
		n, dev := userNetwork(t)
		g := bootGuest(t, vmm.Config{Transport: transport, CommandLine: addressed(n), Devices: []virtio.Device{dev}})
		probe := g.probe()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		toHost := netip.AddrPortFrom(n.Gateway(), uint16(l.Addr().(*net.TCPAddr).Port))
		checkTCP(t, g, probe, 2<<20, l, toHost.String(), n.Published()[0].Host.String())
		checkUDP(t, g, probe, n.Published()[1].Host.String())
		if out := g.must("ping", "-c", "2", n.Gateway().String()); !strings.Contains(out, "2 packets") && !strings.Contains(out, "bytes from") {
			t.Errorf("ping: %q", out)
		}
	})
}

// checkTCP sends n bytes from the guest to the host's listener, at whose address
// the guest sees it, and as many to the guest's port 7000, which the host sees
// at an address of its own.
func checkTCP(t *testing.T, g *guest, probe string, n int, l net.Listener, toHost, toGuest string) {
	t.Helper()
	data := noise(n, 21)
	g.put("/tmp/data", data, 0o600)
	got := make(chan string, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			got <- err.Error()
			return
		}
		defer c.Close()
		b, err := io.ReadAll(c)
		got <- fmt.Sprintf("%d %s, %v", len(b), sum(b), err)
	}()
	g.must(probe, "send", toHost, "/tmp/data")
	if s, want := <-got, fmt.Sprintf("%d %s, <nil>", n, sum(data)); s != want {
		t.Errorf("from the guest: %s, want %s", s, want)
	}

	wait := g.background(probe, "receive", ":7000")
	c, err := net.DialTimeout("tcp", toGuest, acceltest.Limit(10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	data = noise(n, 22)
	if _, err := c.Write(data); err != nil {
		t.Errorf("to the guest: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if s, want := wait(), fmt.Sprintf("%d %s\n", n, sum(data)); !strings.HasSuffix(s, want) {
		t.Errorf("to the guest: %q, want %q", s, want)
	}
}

// checkUDP has a datagram answered by the guest.
func checkUDP(t *testing.T, g *guest, probe, toGuest string) {
	t.Helper()
	wait := g.background(probe, "udp", ":7001")
	c, err := net.Dial("udp", toGuest)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(acceltest.Limit(time.Minute)))
	b := make([]byte, 64)
	if _, err := c.Write([]byte("datagram")); err != nil {
		t.Fatal(err)
	}
	if k, err := c.Read(b); err != nil || string(b[:k]) != "datagram" {
		t.Errorf("answer %q, %v", b[:k], err)
	}
	wait()
}

// The network's own DHCP and DNS servers tell the guest all it has to know.
func TestGuestAsksForItsAddress(t *testing.T) { eachTransport(t, testAsksForItsAddress) }

func testAsksForItsAddress(t *testing.T, transport vmm.Transport) {
	t.Helper()
	n, dev := userNetwork(t)
	g := bootGuest(t, vmm.Config{Transport: transport, CommandLine: guestimages.ParamNet + "dhcp", Devices: []virtio.Device{dev}})
	want := fmt.Sprintf("inet %v/%d", n.GuestIP(), n.Subnet().Bits())
	waitFor(t, acceltest.Limit(time.Minute), func() string { return "no address by DHCP: " + g.must("ip", "addr") },
		func() bool { return strings.Contains(g.must("ip", "addr"), want) })
	waitFor(t, acceltest.Limit(time.Minute), func() string { return "no name server: " + g.sh("cat /etc/resolv.conf") },
		func() bool { return strings.Contains(g.sh("cat /etc/resolv.conf || true"), n.DNS().String()) })
	// The default route, its gateway in hexadecimal, the lowest byte first.
	gateway := n.Gateway().As4()
	route := fmt.Sprintf("eth0\t00000000\t%02X%02X%02X%02X\t", gateway[3], gateway[2], gateway[1], gateway[0])
	if routes := g.must("cat", "/proc/net/route"); !strings.Contains(routes, route) {
		t.Errorf("no route to the gateway: %q", routes)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	toHost := netip.AddrPortFrom(n.Gateway(), uint16(l.Addr().(*net.TCPAddr).Port))
	checkTCP(t, g, g.probe(), 64<<10, l, toHost.String(), n.Published()[0].Host.String())
}

// A name is looked up by the guest through the network's DNS server, whose own
// is the test's.
func TestGuestLooksUpNames(t *testing.T) { eachTransport(t, testLooksUpNames) }

func testLooksUpNames(t *testing.T, transport vmm.Transport) {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go answerNames(server)
	n, err := usernet.New(usernet.Config{Nameservers: []netip.AddrPort{server.LocalAddr().(*net.UDPAddr).AddrPort()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	dev, err := virtionet.New(virtionet.Config{Backend: n, MAC: n.GuestMAC(), MTU: n.MTU()})
	if err != nil {
		t.Fatal(err)
	}
	g := bootGuest(t, vmm.Config{Transport: transport, CommandLine: addressed(n), Devices: []virtio.Device{dev}})
	if got := g.must(g.probe(), "lookup", "machine.test."); got != "192.0.2.7\n" {
		t.Errorf("machine.test has the address %q", got)
	}
}

// answerNames answers every question for an A record with 192.0.2.7, and any
// other with nothing (RFC 1035 §4.1).
func answerNames(c net.PacketConn) {
	b := make([]byte, 512)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		end := 12 // of the first question
		for end < n && b[end] != 0 {
			end += int(b[end]) + 1
		}
		end += 5
		if n < 12 || end > n {
			continue
		}
		answer := append([]byte{}, b[:end]...)
		answer[2], answer[3] = 0x81, 0x80 // a response, recursion available, no error
		copy(answer[4:12], []byte{0, 1, 0, 0, 0, 0, 0, 0})
		if b[end-3] == 1 { // type A
			answer[7] = 1
			answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7)
		}
		_, _ = c.WriteTo(answer, from)
	}
}

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

// A guest on a TAP device and the host's kernel, in a network namespace, over
// both transports and with several queues.
func TestGuestTAP(t *testing.T) {
	if !alone(t) {
		return
	}
	for name, cfg := range map[string]vmm.Config{
		"mmio": {}, "pci": {Transport: vmm.TransportPCI}, "two queues": {CPUs: 2},
	} {
		t.Run(name, func(t *testing.T) {
			if cfg.CPUs > 1 {
				acceltest.Slow(t, vmm.KernelsEmulated, severalCPUs)
			}
			dev, err := tap.Open(tap.Config{Queues: max(1, cfg.CPUs)})
			if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
				t.Skipf("no TAP devices here: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = dev.Close() })
			if out, err := exec.Command("ip", "addr", "add", "10.77.0.1/24", "dev", dev.Name()).CombinedOutput(); err != nil {
				t.Fatalf("ip (Debian: iproute2): %v\n%s", err, out)
			}
			device, err := virtionet.New(virtionet.Config{Backend: dev})
			if err != nil {
				t.Fatal(err)
			}
			cfg.CommandLine, cfg.Devices = guestimages.ParamIP+"eth0:10.77.0.2/24", []virtio.Device{device}
			g := bootGuest(t, cfg)
			l, err := net.Listen("tcp", "10.77.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			checkTCP(t, g, g.probe(), 2<<20, l, l.Addr().String(), "10.77.0.2:7000")
			checkUDP(t, g, "/tmp/probe", "10.77.0.2:7001")
		})
	}
}
