package intake

import "io"

// SetSizes sets the sizes from which CARs of archives are not copied, and from which they are read
// one at a time.
func (l *Loader) SetSizes(copied, large int64) { l.copyBytes, l.largeBytes = copied, large }

// NewArchive reads an archive.
func NewArchive(name string, r io.Reader, size int64) (*Archive, error) {
	a, err := newArchive(name, r, size)
	if err == nil {
		a.file = io.NopCloser(r)
	}
	return a, err
}
