package store

// Source is a firehose source that was added while running, or removed although the options name
// it.
type Source struct {
	URL string `cbor:"1,keyasint"` // normalised: ws or wss, host, base path
	// the source is a PDS: only its events about its own accounts count
	PDS bool `cbor:"2,keyasint,omitempty"`
	// Removed sources are not followed, even if the options name them.
	Removed bool `cbor:"3,keyasint,omitempty"`
	// Direct sources are PDSes that ingest added because relays leave out events of some of their
	// accounts.
	Direct bool `cbor:"4,keyasint,omitempty"`
}

// PutSource writes a source. It replaces a source with the same URL.
func (b *control) PutSource(src Source) {
	b.put(sourceKey(src.URL), src)
}

// DropSource deletes a source. Its cursor stays until DropCursor.
func (b *control) DropSource(url string) {
	b.delete(sourceKey(url))
	b.unsourced = true
}

// Sources returns the stored sources, in order of URL.
func (s *Store) Sources() ([]Source, error) {
	var out []Source
	err := scan(s.db, []byte{spaceSource}, spaceEnd(spaceSource), func(_, value []byte) (bool, error) {
		var src Source
		err := s.codec.decode(value, &src)
		out = append(out, src)
		return true, err
	})
	return out, err
}
