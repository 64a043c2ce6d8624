package lab

import (
	"testing"
	"time"
)

// FuzzCheck runs whatever bytes as a program and judges what it did: a guest may
// do anything, and its judge must live.
func FuzzCheck(f *testing.F) {
	for _, l := range All() {
		if l.Made() != ".bin" {
			continue
		}
		for _, name := range []string{"solution.bin", "exercise.bin"} {
			program, err := l.File(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(uint8(l.Number), program)
		}
	}
	f.Fuzz(func(t *testing.T, n uint8, program []byte) {
		if len(program) == 0 || len(program) > maxProgram {
			return
		}
		for _, l := range All() {
			if l.Number != int(n) || l.check == nil {
				continue
			}
			cases, err := l.cases()
			if err != nil {
				t.Fatal(err)
			}
			r, err := Run(t.Context(), program, cases[0], Options{Accel: "soft", Limit: 10 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			l.check(r)
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
		if n != 8 {
			return
		}
		img, err := smallImage(2)
		if err != nil {
			t.Fatal(err)
		}
		r, err := Run(t.Context(), program, loaderStart(img, nil, guestMost), Options{Accel: "soft", Limit: 10 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		r.judgeLoader(img)
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}
