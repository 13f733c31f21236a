package filter

// Filter says which repositories are followed. The zero value follows only what is asked for by name.
type Filter struct {
	full    bool
	signals []pattern
}

// pattern is an NSID, or with wild the beginning of one, dot included.
type pattern struct {
	text string
	wild bool
}

// New makes a filter that follows every repository (full), or those found with a record in a
// collection that one of the signals names: an NSID (app.bsky.feed.post) or a prefix at a dot
// (app.bsky.*). The error names the signal that is neither.
func New(full bool, signals []string) (*Filter, error) {
	panic("not written yet")
}

// Full says whether every repository is followed.
func (f *Filter) Full() bool { return f.full }

// Signal says whether a record of this collection makes its repository one to follow.
func (f *Filter) Signal(collection []byte) bool {
	panic("not written yet")
}
