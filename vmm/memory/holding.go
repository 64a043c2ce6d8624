package memory

// Holding says where the contents of a page of a private region come from.
type Holding uint8

// Holdings.
const (
	HoldsNothing Holding = iota // nobody has written to it, and no file lies under it: zeros
	HoldsFile                   // what the file under it has
	HoldsOwn                    // contents of its own
)

// Holdings tells for each page of r where its contents come from. What the
// host does not tell is HoldsOwn, which is always safe to take. Nobody may
// write to the region meanwhile.
func Holdings(r *Region) []Holding {
	h := make([]Holding, len(r.Bytes)/PageSize)
	if !holdings(r.Bytes, h) {
		for i := range h {
			h[i] = HoldsOwn
		}
	}
	return h
}

// Present tells for each page of r whether this process has it in its memory:
// a guest has touched it, or the host brought it along with one that it did.
// It says no of every page where the host does not tell.
func Present(r *Region) []bool {
	p := make([]bool, len(r.Bytes)/PageSize)
	if !present(r.Bytes, p) {
		clear(p)
	}
	return p
}
