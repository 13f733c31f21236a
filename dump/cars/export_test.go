package cars

// MemoryBytes is how much of a CAR is kept in memory.
const MemoryBytes = memoryBytes

// Spool is a spool.
type Spool struct{ *spool }

// NewSpool makes a spool.
func NewSpool(dir string) Spool { return Spool{newSpool(dir)} }

// Content returns the CAR.
func (s Spool) Content() (int64, string, []byte, error) {
	c, err := s.content()
	if err != nil {
		return 0, "", nil, err
	}
	b := make([]byte, c.Size)
	_, err = c.Reader.Read(b)
	return c.Size, c.Sum.String(), b, err
}

// Reset forgets the CAR, and Close frees the file.
func (s Spool) Reset() error { return s.reset() }

// Close frees the file.
func (s Spool) Close() error { return s.close() }
