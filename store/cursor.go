package store

// SetCursor has the batch write the cursor of a firehose source: the last seq up to which everything
// is in the log of writes. at is called while the batch gets its place in the order of batches: what it
// counts as done before it has been called for other batches is in batches before this one. It must
// not block. A negative answer writes nothing.
func (b *Batch) SetCursor(source string, at func() int64) { panic("not written yet") }

// DropCursor forgets the cursor of a source.
func (b *Batch) DropCursor(source string) { panic("not written yet") }

// Cursor is the cursor of a source as last written; ok is false if there is none.
func (s *Store) Cursor(source string) (seq int64, ok bool, err error) { panic("not written yet") }

// Source is a firehose source that was added while running.
type Source struct {
	URL string `cbor:"1,keyasint"`           // normalised: ws or wss, host, base path
	PDS bool   `cbor:"2,keyasint,omitempty"` // a PDS itself: it speaks for its own accounts only
}

// PutSource remembers a source, replacing the one with the same URL.
func (b *Batch) PutSource(src Source) { panic("not written yet") }

// DropSource forgets a source. Its cursor stays until DropCursor.
func (b *Batch) DropSource(url string) { panic("not written yet") }

// Sources are the sources remembered, in order of URL.
func (s *Store) Sources() ([]Source, error) { panic("not written yet") }

// DropCrawlCursor forgets a listing.
func (b *Batch) DropCrawlCursor(source string) { panic("not written yet") }

// CrawlCursors are the cursors of all listings whose source begins with prefix, by source.
func (s *Store) CrawlCursors(prefix string) (map[string]string, error) { panic("not written yet") }
