package compare

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestSummarizeKnownSample(t *testing.T) {
	s := Summarize([]float64{9, 1, 2, 3, 4, 5, 6, 7, 8, 100})
	if s.N != 10 || s.Median != 5.5 || s.Min != 1 || s.Max != 100 || s.Outliers != 1 {
		t.Errorf("got %+v, want the median 5.5 and one outlier", s)
	}
	if !(s.Low <= s.Median && s.Median <= s.High && s.Low >= s.Min && s.High <= s.Max) {
		t.Errorf("the interval [%g, %g] does not hold the median %g", s.Low, s.High, s.Median)
	}
	if again := Summarize([]float64{9, 1, 2, 3, 4, 5, 6, 7, 8, 100}); again != s {
		t.Errorf("the same sample gave %+v and %+v", s, again)
	}
	if zero := (Summary{}); Summarize(nil) != zero {
		t.Error("nothing has a summary")
	}
}

// TestIntervalCovers: of many samples of a known distribution, about 95 % have
// an interval that holds its median.
func TestIntervalCovers(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	const samples = 200
	covered := 0
	for range samples {
		x := make([]float64, 25)
		for i := range x {
			x[i] = math.Exp(rng.NormFloat64()) // its median is 1
		}
		if s := Summarize(x); s.Low <= 1 && 1 <= s.High {
			covered++
		}
	}
	if share := float64(covered) / samples; share < 0.88 || share > 0.995 {
		t.Errorf("%.0f %% of the intervals hold the median, want about 95 %%", 100*share)
	}
}

func TestNoisy(t *testing.T) {
	if Summarize([]float64{10, 10.1, 10.2, 9.9, 10}).Noisy {
		t.Error("a steady sample is called noisy")
	}
	if !Summarize([]float64{1, 5, 10, 15, 20}).Noisy {
		t.Error("a sample that is all over the place is not called noisy")
	}
}

func TestDegrades(t *testing.T) {
	point := func(n int, start float64, memory uint64) ScalePoint {
		return ScalePoint{Instances: n, Start: []float64{start}, Memory: Memory{Private: memory * uint64(n)}}
	}
	for _, c := range []struct {
		name   string
		points []ScalePoint
		want   int
		what   string
	}{
		{"steady", []ScalePoint{point(1, 10, 100), point(4, 15, 110)}, 0, ""},
		{"slower", []ScalePoint{point(1, 10, 100), point(4, 21, 110), point(8, 30, 300)}, 4, "start"},
		{"larger", []ScalePoint{point(1, 10, 100), point(8, 10, 151)}, 8, "memory"},
		{"nothing", nil, 0, ""},
	} {
		e := EngineResult{Scale: c.points}
		if n, what := e.Degrades(); n != c.want || what != c.what {
			t.Errorf("%s: degrades at %d (%s), want %d (%s)", c.name, n, what, c.want, c.what)
		}
	}
}
