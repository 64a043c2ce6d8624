package export

import (
	"bufio"
	"encoding/binary"
	"io"
	"strings"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio/net"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
	"github.com/vitrine-vmm/vitrine/vmm/trace/decode"
)

// PCAP writes the frames of a trace's network devices for tcpdump, Wireshark
// and others (draft-ietf-opsawg-pcap, with nanoseconds). The trace must have
// been taken with a Snap of SnapFrames for frames to be whole.
type PCAP struct {
	w     *bufio.Writer
	c     io.Closer
	began time.Time
	Count int // frames written
}

// SnapFrames is a Snap that holds a whole frame, segmentation offload included.
const SnapFrames = net.HeaderLen + 64<<10

// The file's header.
const (
	pcapMagic     = 0xa1b23c4d // times in nanoseconds
	pcapEthernet  = 1
	pcapHeaderLen = 24
)

// NewPCAP begins a file; Close ends it and closes w.
func NewPCAP(w io.WriteCloser, meta *trace.Meta) (*PCAP, error) {
	p := &PCAP{w: bufio.NewWriterSize(w, 64<<10), c: w, began: meta.Began}
	var h [pcapHeaderLen]byte
	le := binary.LittleEndian
	le.PutUint32(h[0:], pcapMagic)
	le.PutUint16(h[4:], 2)
	le.PutUint16(h[6:], 4)
	le.PutUint32(h[16:], SnapFrames)
	le.PutUint32(h[20:], pcapEthernet)
	_, err := p.w.Write(h[:])
	return p, err
}

// Add writes the frame that an event is about, if it is about one.
func (p *PCAP) Add(it *trace.Item, l *decode.Line) error {
	var n uint64
	switch {
	case it.Kind == trace.KindPop && strings.HasPrefix(l.What, "net tx "):
		n = it.Aux >> 32
	case it.Kind == trace.KindPush && strings.HasPrefix(l.What, "net rx "):
		n = it.Aux
	default:
		return nil
	}
	if len(it.Data) <= net.HeaderLen || n <= net.HeaderLen {
		return nil
	}
	frame := it.Data[net.HeaderLen:]
	at := p.began.Add(it.Time)
	var h [16]byte
	le := binary.LittleEndian
	le.PutUint32(h[0:], uint32(at.Unix()))
	le.PutUint32(h[4:], uint32(at.Nanosecond()))
	le.PutUint32(h[8:], uint32(len(frame)))
	le.PutUint32(h[12:], uint32(n-net.HeaderLen))
	p.Count++
	if _, err := p.w.Write(h[:]); err != nil {
		return err
	}
	_, err := p.w.Write(frame)
	return err
}

// Close ends the file.
func (p *PCAP) Close() error {
	err := p.w.Flush()
	if e := p.c.Close(); err == nil {
		err = e
	}
	return err
}
