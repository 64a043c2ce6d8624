package usernet

import (
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	virtionet "github.com/vitrine-vmm/vitrine/devices/virtio/net"
)

// This file is link's side towards the stack: stack.LinkEndpoint.

// WritePackets queues packets for the guest.
func (l *link) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	for i, pkt := range pkts.AsSlice() {
		q := queued{pkt: pkt.Clone()}
		if !l.push(q) {
			q.release()
			if i == 0 {
				return 0, &tcpip.ErrNoBufferSpace{}
			}
			return i, nil
		}
	}
	return pkts.Len(), nil
}

// MTU is the largest IP packet.
func (l *link) MTU() uint32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mtu
}

// SetMTU changes it.
func (l *link) SetMTU(mtu uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mtu = mtu
}

// MaxHeaderLength is that of Ethernet.
func (l *link) MaxHeaderLength() uint16 { return header.EthernetMinimumSize }

// LinkAddress is the gateway's MAC address.
func (l *link) LinkAddress() tcpip.LinkAddress { return gatewayMAC }

// SetLinkAddress does nothing: the address is fixed.
func (l *link) SetLinkAddress(tcpip.LinkAddress) {}

// Capabilities says that the stack finds the guest's address by ARP, and need
// not verify what it sends.
func (l *link) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityResolutionRequired | stack.CapabilityRXChecksumOffload
}

// SupportedGSO says whether the guest takes TCP unsegmented.
func (l *link) SupportedGSO() stack.SupportedGSO {
	l.mu.Lock()
	defer l.mu.Unlock()
	const need = virtionet.FeatureGuestCsum | virtionet.FeatureGuestTSO4
	if l.offloads&need == need {
		return stack.HostGSOSupported
	}
	return stack.GSONotSupported
}

// GSOMaxSize is the largest packet before segmentation.
func (l *link) GSOMaxSize() uint32 {
	return 65535 - header.IPv4MaximumHeaderSize - header.TCPHeaderMaximumSize
}

// Attach gives the link its stack.
func (l *link) Attach(d stack.NetworkDispatcher) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dispatcher = d
}

// IsAttached says whether it has one.
func (l *link) IsAttached() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dispatcher != nil
}

// ARPHardwareType is Ethernet.
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareEther }

// AddHeader puts the Ethernet header before a packet of the stack's.
func (l *link) AddHeader(pkt *stack.PacketBuffer) {
	eth := header.Ethernet(pkt.LinkHeader().Push(header.EthernetMinimumSize))
	eth.Encode(&header.EthernetFields{
		SrcAddr: pkt.EgressRoute.LocalLinkAddress, DstAddr: pkt.EgressRoute.RemoteLinkAddress,
		Type: pkt.NetworkProtocolNumber,
	})
}

// ParseHeader takes it off a packet of the guest's.
func (l *link) ParseHeader(pkt *stack.PacketBuffer) bool {
	_, ok := pkt.LinkHeader().Consume(header.EthernetMinimumSize)
	return ok
}

// Wait has nothing to wait for: the link has no goroutines.
func (l *link) Wait() {}

// Close does nothing: the link outlives its stack.
func (l *link) Close() {}

// SetOnCloseAction does nothing, as Close does.
func (l *link) SetOnCloseAction(func()) {}
