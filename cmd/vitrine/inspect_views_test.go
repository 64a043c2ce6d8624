package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
)

// Whatever is asked of a machine's views, it is answered, and the guest runs
// on.
func FuzzInspectRequests(f *testing.F) {
	m, err := vmm.New(vmm.Config{Kernel: tinyKernel(f, forever), Memory: 16 << 20, Accel: acceltest.Of(f, acceltest.Soft)})
	if err != nil {
		f.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- m.Run(context.Background()) }()
	f.Cleanup(func() {
		m.Stop(nil)
		<-ended
		_ = m.Close()
	})
	views := inspectExtra(m).Inspect
	names := vmm.Inspections()
	for i := range names {
		f.Add(uint8(i), "addr=0x100000&cpu=0&length=4")
	}
	f.Add(uint8(2), "addr=zz&cpu=-1")
	f.Fuzz(func(t *testing.T, view uint8, query string) {
		w := httptest.NewRecorder()
		r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/", RawQuery: query}}
		views[names[int(view)%len(names)]].ServeHTTP(w, r)
		if !slices.Contains([]int{http.StatusOK, http.StatusBadRequest, http.StatusConflict}, w.Code) || w.Body.Len() == 0 {
			t.Fatalf("%d %q", w.Code, w.Body)
		}
		if m.Paused() {
			t.Fatal("the guest stands still")
		}
		select {
		case err := <-ended:
			t.Fatalf("the guest ended: %v", err)
		default:
		}
	})
}
