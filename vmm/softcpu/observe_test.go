package softcpu

import "testing"

// CPUID, RDMSR and WRMSR are told to whoever wants to see them, each with its
// own address.
func TestSystemInstructionsAreTold(t *testing.T) {
	b := newBare(t, Options{}, 1)
	b.code(bareCode, "31 c0 0f a2 b9 77020000 0f 32 0f 30 e6 80")
	b.start(0, bareCode, nil)
	var got []System
	b.cpu[0].OnSystem(func(s System) { got = append(got, s) })
	b.wantPort(0x80)
	want := []System{{Op: SystemCPUID, RIP: bareCode + 2}, {Op: SystemReadMSR, RIP: bareCode + 9, Index: 0x277}, {Op: SystemWriteMSR, RIP: bareCode + 11, Index: 0x277}}
	if len(got) != len(want) {
		t.Fatalf("told %+v", got)
	}
	for i, w := range want {
		if g := got[i]; g.Op != w.Op || g.RIP != w.RIP || g.Index != w.Index {
			t.Errorf("%d: told %+v, want %+v", i, g, w)
		}
	}
	if got[0].Result == ([4]uint32{}) || got[1].Result != got[2].Result {
		t.Errorf("results: %+v", got)
	}
}
