package vsock

import "fmt"

// Describe says what a packet is, for traces. b is its first bytes.
func Describe(b []byte) string {
	if len(b) < headerLen {
		return "a packet without a whole header"
	}
	var h header
	h.decode((*[headerLen]byte)(b))
	s := fmt.Sprintf("%v %d:%d → %d:%d", h.op, h.srcCID, h.srcPort, h.dstCID, h.dstPort)
	switch h.op {
	case opRW:
		s += fmt.Sprintf(", %d B", h.len)
	case opShutdown:
		s += [...]string{"", ", receives no more", ", sends no more", ", both ways"}[h.flags&shutBoth]
	case opCreditUpdate, opResponse, opRequest:
		s += fmt.Sprintf(", buffer %d, taken %d", h.bufAlloc, h.fwdCnt)
	}
	return s
}
