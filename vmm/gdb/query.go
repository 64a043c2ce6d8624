package gdb

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/vitrine-vmm/vitrine/vmm/paging"
)

// query is the q and Q packets.
func (s *session) query(verb byte, arg string) []byte {
	name, rest, _ := strings.Cut(arg, ":")
	if verb == 'Q' {
		if name == "StartNoAckMode" {
			s.noAck = true
			return ok
		}
		return []byte{}
	}
	switch name {
	case "Supported":
		s.swbreak = strings.Contains(rest, "swbreak+")
		s.hwbreak = strings.Contains(rest, "hwbreak+")
		return fmt.Appendf(nil, "PacketSize=%x;qXfer:features:read+;QStartNoAckMode+;vContSupported+;swbreak+;hwbreak+", maxPacket-1)
	case "Xfer":
		return s.transfer(rest)
	case "C":
		return fmt.Appendf(nil, "QC%x", s.thread+1)
	case "fThreadInfo":
		out := []byte{'m'}
		for i := range s.t.CPUs() {
			if i > 0 {
				out = append(out, ',')
			}
			out = fmt.Appendf(out, "%x", i+1)
		}
		return out
	case "sThreadInfo":
		return []byte{'l'}
	case "Attached":
		return []byte{'1'}
	case "Symbol":
		return ok
	}
	if id, found := strings.CutPrefix(arg, "ThreadExtraInfo,"); found {
		return s.threadInfo(id)
	}
	if cmd, found := strings.CutPrefix(arg, "Rcmd,"); found {
		return s.monitor(cmd)
	}
	return []byte{}
}

// transfer is qXfer:features:read:target.xml:offset,length.
func (s *session) transfer(rest string) []byte {
	span, found := strings.CutPrefix(rest, "features:read:target.xml:")
	if !found {
		return []byte{}
	}
	off, n, good := addrLen(span)
	if !good {
		return []byte(errInvalid)
	}
	if off >= uint64(len(targetXML())) {
		return []byte{'l'}
	}
	part := targetXML()[off:]
	n = min(n, maxPacket/2-8) // escapes may double it
	if n < uint64(len(part)) {
		return append([]byte{'m'}, part[:n]...)
	}
	return append([]byte{'l'}, part...)
}

func (s *session) threadInfo(id string) []byte {
	cpu, found := s.threadID(id)
	if !found || cpu < 0 {
		return []byte(errInvalid)
	}
	r, err := s.t.Registers(cpu)
	if err != nil {
		return errorText(err)
	}
	return appendHex(nil, fmt.Appendf(nil, "CPU %d (%s)", cpu, modeOf(r)))
}

const monitorHelp = `monitor walk ADDR     the page tables' entries for a virtual address
monitor phys ADDR N   N bytes (at most 256) of physical memory
`

// monitor is GDB's monitor command: what only a virtual machine can answer.
func (s *session) monitor(hex string) []byte {
	cmd, good := parseHex([]byte(hex))
	if !good {
		return []byte(errInvalid)
	}
	words := strings.Fields(string(cmd))
	text := monitorHelp
	switch {
	case len(words) == 2 && words[0] == "walk":
		text = s.walk(words[1])
	case len(words) == 3 && words[0] == "phys":
		text = s.physical(words[1], words[2])
	}
	return appendHex(nil, []byte(text))
}

func (s *session) walk(word string) string {
	addr, err := strconv.ParseUint(word, 0, 64)
	if err != nil {
		return fmt.Sprintf("%q is not an address\n", word)
	}
	v, err := s.virtual()
	if err != nil {
		return err.Error() + "\n"
	}
	w := v.cpu.Walk(v.mem, addr, paging.Read)
	return w.String() + "\n"
}

func (s *session) physical(word, count string) string {
	addr, err1 := strconv.ParseUint(word, 0, 64)
	n, err2 := strconv.ParseUint(count, 0, 16)
	if err1 != nil || err2 != nil || n > 256 {
		return "monitor phys ADDR N: N is at most 256\n"
	}
	v := virtual{mem: s.t.Memory()}
	b, err := v.mem.Bytes(addrOf(addr), n)
	if err != nil {
		return err.Error() + "\n"
	}
	var out strings.Builder
	for i := 0; i < len(b); i += 16 {
		fmt.Fprintf(&out, "%#x: % x\n", addr+uint64(i), b[i:min(i+16, len(b))])
	}
	return out.String()
}
