package compare

import (
	"math"
	"math/rand/v2"
	"slices"
)

// Summary describes a sample. The interval is the percentile bootstrap of the
// median (Efron and Tibshirani, An Introduction to the Bootstrap, ch. 13).
type Summary struct {
	N         int
	Median    float64
	Low, High float64 // 95 % confidence interval of the median
	Min, Max  float64
	Outliers  int  // beyond 1.5 interquartile ranges from the quartiles (Tukey)
	Noisy     bool // the middle half spreads over more than a quarter of the median
}

// minForOutliers is the size from which a sample has quartiles worth the name.
const minForOutliers = 8

// resamples is enough for the interval's ends to be steady to a few per cent.
const resamples = 2000

// Summarize describes x; the zero Summary if x is empty. The same sample always
// gives the same interval.
func Summarize(x []float64) Summary {
	if len(x) == 0 {
		return Summary{}
	}
	s := slices.Sorted(slices.Values(x))
	sum := Summary{N: len(s), Median: quantile(s, 0.5), Min: s[0], Max: s[len(s)-1]}
	q1, q3 := quantile(s, 0.25), quantile(s, 0.75)
	for _, v := range s {
		if len(s) >= minForOutliers && (v < q1-1.5*(q3-q1) || v > q3+1.5*(q3-q1)) {
			sum.Outliers++
		}
	}
	sum.Noisy = len(s) >= 4 && q3-q1 > 0.25*sum.Median
	sum.Low, sum.High = bootstrap(s)
	return sum
}

func medianOf(x []float64) float64 { return quantile(slices.Sorted(slices.Values(x)), 0.5) }

func bootstrap(s []float64) (low, high float64) {
	rng := rand.New(rand.NewPCG(uint64(len(s)), 0x5eed))
	medians := make([]float64, resamples)
	draw := make([]float64, len(s))
	for i := range medians {
		for j := range draw {
			draw[j] = s[rng.IntN(len(s))]
		}
		slices.Sort(draw)
		medians[i] = quantile(draw, 0.5)
	}
	slices.Sort(medians)
	return quantile(medians, 0.025), quantile(medians, 0.975)
}

// quantile is the p-quantile of sorted s, between neighbours in proportion
// (Hyndman and Fan's type 7).
func quantile(s []float64, p float64) float64 {
	at := p * float64(len(s)-1)
	i := int(math.Floor(at))
	if i+1 >= len(s) {
		return s[len(s)-1]
	}
	return s[i] + (at-float64(i))*(s[i+1]-s[i])
}

// Degrades is the first number of instances at which the engine is no longer
// what it was with the first few: a start takes more than twice as long, or an
// instance takes half as much memory again. 0: not within what was measured.
func (e *EngineResult) Degrades() (instances int, what string) {
	if len(e.Scale) == 0 {
		return 0, ""
	}
	first := e.Scale[0]
	start, mem := Summarize(first.Start).Median, perInstance(first)
	for _, p := range e.Scale[1:] {
		switch {
		case Summarize(p.Start).Median > 2*start:
			return p.Instances, "start"
		case perInstance(p) > 1.5*mem:
			return p.Instances, "memory"
		}
	}
	return 0, ""
}

func perInstance(p ScalePoint) float64 { return float64(p.Memory.Total()) / float64(p.Instances) }
