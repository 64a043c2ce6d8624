package export

import (
	"strings"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/trace"
	"github.com/vitrine-vmm/vitrine/vmm/trace/decode"
)

func TestProfile(t *testing.T) {
	s := NewSummary(&trace.Meta{CPUs: 2})
	for _, e := range []decode.Executed{
		{CPL: 3}, // before anybody has said where its page table is
		{Function: "copy_page"},
		{Function: "copy_page", CPU: 1},
		{Function: "switch_mm", CR3: 1<<63 | 0x5000 | 0x801}, // PCID 0x801, no flush
		{CPL: 3, Function: "not the kernel's"},
		{CPL: 3},
		{CPL: 3, CPU: 1}, // has its own CR3
		{},
	} {
		s.Executed(1000, e)
	}
	var b strings.Builder
	s.Write(&b, nil)
	said := strings.Join(strings.Fields(b.String()), " ")
	for _, want := range []string{"8 events in", "copy_page 2 25.00%", "user code, page table 0x5000 2 25.00%", "user code 2 25.00%",
		"code that no symbol names 1 12.50%", "switch_mm 1 12.50%", "all 8", "instruction 8"} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

// TestProfileIsBounded: a guest may invent address spaces for ever.
func TestProfileIsBounded(t *testing.T) {
	var p profile
	for i := range uint64(2 * maxNames) {
		p.add(&decode.Executed{CR3: (i + 1) << 12})
		p.add(&decode.Executed{CPL: 3})
	}
	if len(p.by) > maxNames+1 || p.total != 4*maxNames {
		t.Errorf("%d counters, %d instructions", len(p.by), p.total)
	}
	var sum uint64
	for _, n := range p.by {
		sum += *n
	}
	if sum != p.total {
		t.Errorf("the counters have %d of %d", sum, p.total)
	}
}
