package memory

// discardable returns the pages that Discard may give up: whole ones of RAM
// that the guest may write. Their contents change, which is noted like a write.
func (g *Guest) discardable(a Addr, n uint64) ([]byte, error) {
	if a%PageSize != 0 || n%PageSize != 0 {
		return nil, &RangeError{a, n}
	}
	for _, r := range g.Regions() {
		if a >= r.Base && a < r.End() && r.Kind == RAM {
			return g.WritableBytes(a, n)
		}
	}
	return nil, &RangeError{a, n}
}
