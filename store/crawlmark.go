package store

import (
	"errors"
	"fmt"
	"strings"
)

// CrawlList names one list that is read for a crawl source.
type CrawlList struct {
	Kind string // kind of the source, as in package discover
	URL  string // origin of the source
	Part string // "": the source's own list; else the host or the collection that is listed
}

// String returns KIND::URL or KIND::URL::PART, for logs.
func (l CrawlList) String() string {
	if l.Part == "" {
		return l.Kind + "::" + l.URL
	}
	return l.Kind + "::" + l.URL + "::" + l.Part
}

// CrawlMark is the position up to which a list was read. The zero mark is the position before the
// first page.
type CrawlMark struct {
	// version of the filter that was applied to the last page
	Filter uint32 `cbor:"1,keyasint,omitempty"`
	Ended  int64  `cbor:"2,keyasint,omitempty"` // unix seconds when the pass ended; 0: under way
	Pages  int64  `cbor:"3,keyasint,omitempty"` // pages of the pass
	Named  int64  `cbor:"4,keyasint,omitempty"` // entries of the pass
	Before int64  `cbor:"5,keyasint,omitempty"` // entries of the last pass that was not thin
	Thin   uint8  `cbor:"6,keyasint,omitempty"` // thin passes in a row
	Cursor string `cbor:"7,keyasint,omitempty"` // cursor of the next page
}

// PutCrawlMark writes the mark of a list.
func (b *control) PutCrawlMark(l CrawlList, m CrawlMark) {
	if l.Kind == "" || l.URL == "" || strings.Contains(l.Kind+l.URL, "\x00") {
		b.fail(fmt.Errorf("list %q cannot be the key of a crawl mark", l.String()))
		return
	}
	b.put(crawlKey(b.key[:0], l), m)
}

// DropCrawlMark deletes the mark of a list.
func (b *control) DropCrawlMark(l CrawlList) { b.delete(crawlKey(b.key[:0], l)) }

// LockCrawlMark gives the caller the sole right to write the mark of a list until unlock. It is
// taken before the locks of repositories.
func (s *Store) LockCrawlMark(l CrawlList) (unlock func()) {
	return s.Lock(string(crawlKey(nil, l)))
}

// CrawlMark returns the mark of a list as last written, or the zero mark if no mark was written.
func (s *Store) CrawlMark(l CrawlList) (m CrawlMark, err error) {
	err = get(s.db, crawlKey(nil, l), func(v []byte) error {
		m, err = s.parseCrawlMark(v)
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return CrawlMark{}, nil
	}
	if err != nil {
		return CrawlMark{}, fmt.Errorf("mark of list %s: %w", l, err)
	}
	return m, nil
}

// CrawlMarks returns the marks of all lists of a source.
func (s *Store) CrawlMarks(kind, url string) (map[CrawlList]CrawlMark, error) {
	lower := crawlKey(nil, CrawlList{Kind: kind, URL: url})
	upper := append(lower[:len(lower)-1:len(lower)-1], crawlSeparator+1)
	marks := map[CrawlList]CrawlMark{}
	err := scan(s.db, lower, upper, func(key, value []byte) (bool, error) {
		l, err := parseCrawlKey(key)
		if err != nil {
			return false, err
		}
		if marks[l], err = s.parseCrawlMark(value); err != nil {
			return false, fmt.Errorf("mark of list %s: %w", l, err)
		}
		return true, nil
	})
	return marks, err
}

func (s *Store) parseCrawlMark(v []byte) (m CrawlMark, err error) {
	if err = s.codec.decode(v, &m); err == nil && min(m.Ended, m.Pages, m.Named, m.Before) < 0 {
		err = fmt.Errorf("%+v has a negative number: %w", m, ErrCorrupt)
	}
	return m, err
}
