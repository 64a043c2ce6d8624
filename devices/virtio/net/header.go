package net

import (
	"encoding/binary"
	"fmt"
)

// HeaderLen is the size of struct virtio_net_hdr with num_buffers, which every
// device that follows virtio 1.0 or later uses (virtio 1.2 §5.1.6).
const HeaderLen = 12

// Flags of a Header.
const (
	HeaderNeedsCsum = 1 // the checksum at CsumStart+CsumOffset is not complete
	HeaderDataValid = 2 // the checksum has been verified
)

// Segmentation types of a Header.
const (
	GSONone  = 0
	GSOTCPv4 = 1
	GSOUDP   = 3
	GSOTCPv6 = 4
	GSOECN   = 0x80 // a flag: the segments carry ECN
)

// Header is struct virtio_net_hdr, which stands before every frame (virtio
// 1.2 §5.1.6); fields are little-endian:
//
//	 0     1        2        4        6          8           10          12
//	|flags|gso_type|hdr_len |gso_size|csum_start|csum_offset|num_buffers|
type Header struct {
	Flags      uint8
	GSOType    uint8
	HdrLen     uint16 // bytes of headers that each segment repeats; a hint
	GSOSize    uint16 // payload bytes a segment
	CsumStart  uint16 // from the frame's first byte
	CsumOffset uint16 // from CsumStart
	NumBuffers uint16 // buffers that a received frame fills
}

// Decode reads the header from the first HeaderLen bytes of b.
func (h *Header) Decode(b []byte) {
	le := binary.LittleEndian
	_ = b[HeaderLen-1]
	h.Flags, h.GSOType = b[0], b[1]
	h.HdrLen, h.GSOSize = le.Uint16(b[2:]), le.Uint16(b[4:])
	h.CsumStart, h.CsumOffset = le.Uint16(b[6:]), le.Uint16(b[8:])
	h.NumBuffers = le.Uint16(b[10:])
}

// Encode writes the header to the first HeaderLen bytes of b.
func (h *Header) Encode(b []byte) {
	le := binary.LittleEndian
	_ = b[HeaderLen-1]
	b[0], b[1] = h.Flags, h.GSOType
	le.PutUint16(b[2:], h.HdrLen)
	le.PutUint16(b[4:], h.GSOSize)
	le.PutUint16(b[6:], h.CsumStart)
	le.PutUint16(b[8:], h.CsumOffset)
	le.PutUint16(b[10:], h.NumBuffers)
}

// Check says whether a frame of n bytes that the guest sent may have this
// header under the negotiated features (virtio 1.2 §5.1.6.2.1). Offsets that
// lie outside the frame never reach a back end.
func (h *Header) Check(n int, features uint64) error {
	if h.Flags&HeaderNeedsCsum != 0 {
		if features&FeatureCsum == 0 {
			return fmt.Errorf("checksum offload was not negotiated")
		}
		if end := int(h.CsumStart) + int(h.CsumOffset) + 2; end > n {
			return fmt.Errorf("checksum at %d of a frame of %d bytes", end-2, n)
		}
	}
	if h.GSOType == GSONone {
		return nil
	}
	var need uint64
	switch h.GSOType &^ GSOECN {
	case GSOTCPv4:
		need = FeatureHostTSO4
	case GSOTCPv6:
		need = FeatureHostTSO6
	default:
		return fmt.Errorf("segmentation type %#x", h.GSOType)
	}
	if h.GSOType&GSOECN != 0 {
		need |= FeatureHostECN
	}
	if features&need != need {
		return fmt.Errorf("segmentation type %#x was not negotiated", h.GSOType)
	}
	if h.GSOSize == 0 || h.Flags&HeaderNeedsCsum == 0 {
		return fmt.Errorf("segmentation without a segment size or checksum")
	}
	return nil
}
