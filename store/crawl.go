package store

import "errors"

// ReconcileCursor names the crawl cursor that records that events of a relay were missed: its value
// is the relay's base URL. It requests a comparison of the listings of all known hosts with our
// rows.
const ReconcileCursor = "reconcile"

// ReconcileFirstPage is the crawl cursor of a comparison that has begun and has not read a page yet.
const ReconcileFirstPage = "\x00"

// SetCrawlCursor remembers how far the listing of a source has been enqueued.
func (b *Batch) SetCrawlCursor(source, cursor string) { b.set(crawlKey(source), []byte(cursor)) }

// DropCrawlCursor forgets a listing.
func (b *Batch) DropCrawlCursor(source string) { b.delete(crawlKey(source)) }

// CrawlCursor is what SetCrawlCursor wrote last, "" for a new source.
func (s *Store) CrawlCursor(source string) (string, error) {
	var cursor string
	err := get(s.db, crawlKey(source), func(v []byte) error { cursor = string(v); return nil })
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	return cursor, err
}

// CrawlCursors are the cursors of all listings whose source begins with prefix, by source.
func (s *Store) CrawlCursors(prefix string) (map[string]string, error) {
	out := map[string]string{}
	err := scan(s.db, crawlKey(prefix), append(crawlKey(prefix), 0xff), func(key, value []byte) (bool, error) {
		out[string(key[1:])] = string(value)
		return true, nil
	})
	return out, err
}
