package store

// CrawlSource is a crawl source that was added while running, or removed although the options name
// it.
type CrawlSource struct {
	Kind string `cbor:"1,keyasint"` // as in package discover
	URL  string `cbor:"2,keyasint"` // origin
	// Removed sources are not read, even if the options name them.
	Removed bool `cbor:"3,keyasint,omitempty"`
}

func (c CrawlSource) name() string { return c.Kind + "::" + c.URL }

// PutCrawlSource writes a crawl source. It replaces a source with the same kind and URL.
func (b *control) PutCrawlSource(c CrawlSource) {
	b.put(crawlSourceKey(c.name()), c)
}

// DropCrawlSource deletes a crawl source. Its marks stay until DropCrawlMark.
func (b *control) DropCrawlSource(c CrawlSource) {
	b.delete(crawlSourceKey(c.name()))
	b.unsourced = true
}

// CrawlSources returns the stored crawl sources, in order of kind and URL.
func (s *Store) CrawlSources() ([]CrawlSource, error) {
	var out []CrawlSource
	err := scan(s.db, []byte{spaceCrawlSource}, spaceEnd(spaceCrawlSource),
		func(_, value []byte) (bool, error) {
			var c CrawlSource
			err := s.codec.decode(value, &c)
			out = append(out, c)
			return true, err
		})
	return out, err
}
