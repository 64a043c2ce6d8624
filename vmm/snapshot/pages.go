package snapshot

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
)

// Run is a number of pages in a row: of a memory file.
type Run struct{ First, Count uint64 }

// Pages is a set of pages, as runs in ascending order that do not touch. In
// JSON it is a string: base64 of pairs of varints, the pages left out before a
// run and those in it.
type Pages struct{ runs []Run }

// Add adds a run behind all others.
func (p *Pages) Add(first, count uint64) {
	if count == 0 {
		return
	}
	if n := len(p.runs); n > 0 && p.runs[n-1].First+p.runs[n-1].Count == first {
		p.runs[n-1].Count += count
		return
	}
	p.runs = append(p.runs, Run{first, count})
}

// Runs are the set's runs.
func (p *Pages) Runs() []Run { return p.runs }

// Count is the number of pages.
func (p *Pages) Count() (n uint64) {
	for _, r := range p.runs {
		n += r.Count
	}
	return n
}

// end is the page behind the last.
func (p *Pages) end() uint64 {
	if n := len(p.runs); n > 0 {
		return p.runs[n-1].First + p.runs[n-1].Count
	}
	return 0
}

// Within yields what of the set lies in the n pages from first.
func (p *Pages) Within(first, n uint64) iter.Seq[Run] {
	return func(yield func(Run) bool) {
		for _, r := range p.runs {
			lo, hi := max(r.First, first), min(r.First+r.Count, first+n)
			if lo < hi && !yield(Run{lo, hi - lo}) {
				return
			}
		}
	}
}

// MarshalText implements encoding.TextMarshaler.
func (p Pages) MarshalText() ([]byte, error) {
	b := make([]byte, 0, 4*len(p.runs))
	var at uint64
	for _, r := range p.runs {
		b = binary.AppendUvarint(b, r.First-at)
		b = binary.AppendUvarint(b, r.Count)
		at = r.First + r.Count
	}
	return base64.StdEncoding.AppendEncode(nil, b), nil
}

var errPages = errors.New("list of pages: damaged")

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Pages) UnmarshalText(text []byte) error {
	b, err := base64.StdEncoding.AppendDecode(nil, text)
	if err != nil {
		return fmt.Errorf("list of pages: %w", err)
	}
	p.runs = make([]Run, 0, len(b)/4)
	var at uint64
	next := func() (v uint64) {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > math.MaxUint32 {
			err = errPages
			return 0
		}
		b = b[n:]
		return v
	}
	for len(b) > 0 && err == nil {
		skip := next()
		count := next()
		if err == nil && (count == 0 || skip == 0 && len(p.runs) > 0 || at > math.MaxUint32) {
			err = errPages
		}
		if err == nil {
			p.runs = append(p.runs, Run{at + skip, count})
			at += skip + count
		}
	}
	return err
}
