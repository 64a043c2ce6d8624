package net

import "fmt"

// Describe says what a frame's header asks of the receiver, for traces: "" for
// a plain frame. b begins with the header.
func Describe(b []byte) string {
	if len(b) < HeaderLen {
		return "a frame without a whole header"
	}
	var h Header
	h.Decode(b)
	s := ""
	switch h.GSOType &^ GSOECN {
	case GSONone:
	case GSOTCPv4:
		s = fmt.Sprintf("TSO4 by %d B", h.GSOSize)
	case GSOTCPv6:
		s = fmt.Sprintf("TSO6 by %d B", h.GSOSize)
	case GSOUDP:
		s = fmt.Sprintf("UFO by %d B", h.GSOSize)
	default:
		s = fmt.Sprintf("segmentation %d by %d B", h.GSOType, h.GSOSize)
	}
	if h.Flags&HeaderNeedsCsum != 0 {
		if s != "" {
			s += ", "
		}
		s += "checksum to be completed"
	}
	return s
}

// DescribeControl says what a command on the control queue is (virtio 1.2
// §5.1.6.5). b is its first bytes.
func DescribeControl(b []byte) string {
	if len(b) < 2 {
		return "a command without a whole header"
	}
	switch [2]byte{b[0], b[1]} {
	case [2]byte{ctrlRX, ctrlRXPromisc}:
		return "RX promiscuous" + onOff(b[2:])
	case [2]byte{ctrlRX, ctrlRXAllMulti}:
		return "RX all multicast" + onOff(b[2:])
	case [2]byte{ctrlMAC, ctrlMACTableSet}:
		return "MAC table set"
	case [2]byte{ctrlMAC, ctrlMACAddrSet}:
		if len(b) < 8 {
			return "MAC address set"
		}
		return fmt.Sprintf("MAC address set % x", b[2:8])
	case [2]byte{ctrlAnnounce, ctrlAnnounceAck}:
		return "announce acknowledged"
	case [2]byte{ctrlMQ, ctrlMQPairSet}:
		if len(b) < 4 {
			return "queue pairs"
		}
		return fmt.Sprintf("queue pairs %d", int(b[2])|int(b[3])<<8)
	}
	return fmt.Sprintf("class %d command %d", b[0], b[1])
}

func onOff(b []byte) string {
	switch {
	case len(b) == 0:
		return ""
	case b[0] == 0:
		return " off"
	}
	return " on"
}
