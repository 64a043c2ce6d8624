package vmm_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm"
)

// A restored machine tells what of its snapshot it has needed: not all.
func TestWorkingSet(t *testing.T) {
	r := dirtyGuest(t)
	dir := filepath.Join(t.TempDir(), "s")
	saved := save(t, r.Machine, dir, vmm.SaveOptions{})
	if _, ok := r.WorkingSet(); ok {
		t.Error("a machine that was not restored has a working set")
	}
	r.stop()
	again := startSaved(t, dir)
	defer again.stop()
	var need uint64
	for limit := time.Now().Add(time.Minute); need == 0; time.Sleep(time.Millisecond) {
		if p, ok := again.WorkingSet(); ok {
			need = p.Count() * 4096
		}
		if time.Now().After(limit) {
			t.Fatal("no working set")
		}
	}
	if need > saved.Stored/2 {
		t.Errorf("a guest that spins needs %d bytes of %d", need, saved.Stored)
	}
}
