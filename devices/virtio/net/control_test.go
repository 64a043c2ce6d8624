package net

import (
	"encoding/binary"
	stdnet "net"
	"testing"
)

// table is what VIRTIO_NET_CTRL_MAC_TABLE_SET takes.
func table(unicast, multicast []stdnet.HardwareAddr) (b []byte) {
	for _, as := range [][]stdnet.HardwareAddr{unicast, multicast} {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(as)))
		for _, a := range as {
			b = append(b, a...)
		}
	}
	return b
}

func many(n int, first byte) (as []stdnet.HardwareAddr) {
	for i := range n {
		as = append(as, stdnet.HardwareAddr{first, 0, 0, 0, byte(i >> 8), byte(i)})
	}
	return as
}

func TestReceiveFilter(t *testing.T) {
	const features = FeatureCtrlVQ | FeatureCtrlRX | FeatureCtrlMAC
	uni, multi := stdnet.HardwareAddr{2, 1, 1, 1, 1, 1}, stdnet.HardwareAddr{1, 0, 0x5e, 0, 0, 1}
	broadcast := stdnet.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	all := []stdnet.HardwareAddr{testMAC, uni, multi, broadcast}
	type command struct {
		class, cmd uint8
		data       []byte
	}
	off := command{ctrlRX, ctrlRXPromisc, []byte{0}}
	for name, c := range map[string]struct {
		commands []command
		passes   []bool // for each of all
	}{
		"at first":           {nil, []bool{true, true, true, true}},
		"own":                {[]command{off}, []bool{true, false, false, true}},
		"all multicast":      {[]command{off, {ctrlRX, ctrlRXAllMulti, []byte{1}}}, []bool{true, false, true, true}},
		"unicast table":      {[]command{off, {ctrlMAC, ctrlMACTableSet, table([]stdnet.HardwareAddr{uni}, nil)}}, []bool{true, true, false, true}},
		"multicast table":    {[]command{off, {ctrlMAC, ctrlMACTableSet, table(nil, []stdnet.HardwareAddr{multi})}}, []bool{true, false, true, true}},
		"unicast overflow":   {[]command{off, {ctrlMAC, ctrlMACTableSet, table(many(maxTable+1, 2), nil)}}, []bool{true, true, false, true}},
		"multicast overflow": {[]command{off, {ctrlMAC, ctrlMACTableSet, table(nil, many(maxTable+1, 1))}}, []bool{true, false, true, true}},
		"another address":    {[]command{off, {ctrlMAC, ctrlMACAddrSet, uni}}, []bool{false, true, false, true}},
	} {
		t.Run(name, func(t *testing.T) {
			net := newFakeBackend(1, 0)
			g := newGuest(t, net, Config{}, features)
			g.buffers(100, 100, 100, 100, 100)
			for _, cmd := range c.commands {
				if a := g.command(2, cmd.class, cmd.cmd, cmd.data); a != ctrlOK {
					t.Fatalf("command %d.%d: %d", cmd.class, cmd.cmd, a)
				}
			}
			for i, dst := range all {
				net.ports[0].in <- withHeader(Header{}, ethernet(dst, 60+i))
			}
			net.ports[0].in <- withHeader(Header{}, ethernet(broadcast, 80))
			got := make([]bool, len(all))
			for _, frame := g.recv(); len(frame) != 80; _, frame = g.recv() {
				got[len(frame)-60] = true
			}
			for i := range all {
				if got[i] != c.passes[i] {
					t.Errorf("to %v: %v", all[i], got[i])
				}
			}
		})
	}
}

func TestCommandsThatFail(t *testing.T) {
	multi := stdnet.HardwareAddr{1, 2, 3, 4, 5, 6}
	lying := binary.LittleEndian.AppendUint32(nil, 0xffff_ffff)
	for name, c := range map[string]struct {
		features   uint64
		class, cmd uint8
		data       []byte
	}{
		"class":              {Offloads, 77, 0, nil},
		"command":            {FeatureCtrlRX, ctrlRX, 5, []byte{1}},
		"no mode":            {FeatureCtrlRX, ctrlRX, ctrlRXPromisc, nil},
		"mode not agreed":    {0, ctrlRX, ctrlRXPromisc, []byte{1}},
		"short address":      {FeatureCtrlMAC, ctrlMAC, ctrlMACAddrSet, testMAC[:5]},
		"multicast address":  {FeatureCtrlMAC, ctrlMAC, ctrlMACAddrSet, multi},
		"address not agreed": {0, ctrlMAC, ctrlMACAddrSet, testMAC},
		"table lies":         {FeatureCtrlRX, ctrlMAC, ctrlMACTableSet, lying},
		"table cut short":    {FeatureCtrlRX, ctrlMAC, ctrlMACTableSet, table(many(3, 2), nil)[:10]},
		"second table":       {FeatureCtrlRX, ctrlMAC, ctrlMACTableSet, table(many(3, 2), nil)[:22]},
		"pairs not agreed":   {0, ctrlMQ, ctrlMQPairSet, []byte{1, 0}},
		"announce":           {0, ctrlAnnounce, ctrlAnnounceAck, nil},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t, newFakeBackend(1, 0), Config{}, c.features|FeatureCtrlVQ)
			before := *g.dev.filter.Load()
			if a := g.command(2, c.class, c.cmd, c.data); a != ctrlErr {
				t.Errorf("answer %d", a)
			}
			after := *g.dev.filter.Load()
			if before.MAC != after.MAC || len(after.Unicast) != 0 || after.Promiscuous != before.Promiscuous {
				t.Errorf("the filter is %+v", after)
			}
		})
	}
}
