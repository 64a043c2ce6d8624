package net

// Feature bits of the network device (virtio 1.2 §5.1.3). HOST bits concern
// what the guest sends, GUEST bits what it receives.
const (
	FeatureCsum      = 1 << 0  // the guest sends frames without their checksum
	FeatureGuestCsum = 1 << 1  // the guest takes frames without their checksum
	FeatureMTU       = 1 << 3  // the configuration space has the MTU
	FeatureMAC       = 1 << 5  // the configuration space has the MAC address
	FeatureGuestTSO4 = 1 << 7  // the guest takes unsegmented TCP over IPv4
	FeatureGuestTSO6 = 1 << 8  // the guest takes unsegmented TCP over IPv6
	FeatureGuestECN  = 1 << 9  // … with ECN
	FeatureHostTSO4  = 1 << 11 // the guest sends unsegmented TCP over IPv4
	FeatureHostTSO6  = 1 << 12 // the guest sends unsegmented TCP over IPv6
	FeatureHostECN   = 1 << 13 // … with ECN
	FeatureMrgRxbuf  = 1 << 15 // a received frame may fill several buffers
	FeatureStatus    = 1 << 16 // the configuration space has the link's status
	FeatureCtrlVQ    = 1 << 17 // there is a control queue
	FeatureCtrlRX    = 1 << 18 // it sets receive modes
	FeatureAnnounce  = 1 << 21 // the guest announces itself on its network when asked to
	FeatureMQ        = 1 << 22 // there are several queue pairs
	FeatureCtrlMAC   = 1 << 23 // the control queue sets the MAC address
)

// settle drops from the negotiated features those that need others which were
// not negotiated (virtio 1.2 §5.1.3.1), so that the rest need not look twice.
func settle(features uint64) uint64 {
	for _, rule := range [...]struct{ without, drop uint64 }{
		{FeatureCsum, FeatureHostTSO4 | FeatureHostTSO6},
		{FeatureHostTSO4 | FeatureHostTSO6, FeatureHostECN},
		{FeatureGuestCsum, FeatureGuestTSO4 | FeatureGuestTSO6},
		{FeatureGuestTSO4 | FeatureGuestTSO6, FeatureGuestECN},
		{FeatureCtrlVQ, FeatureCtrlRX | FeatureAnnounce | FeatureMQ | FeatureCtrlMAC},
	} {
		if features&rule.without == 0 {
			features &^= rule.drop
		}
	}
	return features
}
