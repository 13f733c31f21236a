package admin

import (
	"errors"
	"net/http"
	"slices"
	"time"

	"cistern/api/wire"
	"cistern/store"
)

// Crawler is the part of the daemon that discovers repositories. Every function may be called by
// any goroutine; if a function is nil, its endpoint answers that nothing is crawled.
type Crawler struct {
	// Sources returns all sources, in order of kind and URL.
	Sources func() []Crawl
	// Parse returns the canonical form of a source, or an error that names the bad value and the
	// mistake.
	Parse func(kind, url string) (store.CrawlSource, error)
	// Add adds a source, if it is new. It is durable on return.
	Add func(store.CrawlSource) error
	// Remove removes a source, which stays removed after a restart. The error is store.ErrNotFound
	// if the source is unknown.
	Remove func(store.CrawlSource) error
	// Forget makes a source start from the beginning. The error is store.ErrNotFound if no list of
	// the source was begun.
	Forget func(store.CrawlSource) error
}

// Crawl is the state of a crawl source.
type Crawl struct {
	store.CrawlSource
	Named              bool // an option names the source
	Implied            bool // mode full implies the source; other modes do not read it
	Persisted, Running bool

	Lists, Ended, Failing        int
	Pages, Listed, Queued, Found int64
	PassEnded                    time.Time
	FailedAt                     time.Time
	Failure                      string
}

// crawlItem is a crawl source as the operator sees it.
type crawlItem struct {
	URL       string      `json:"url"`
	Kind      string      `json:"kind"`
	Persisted bool        `json:"persisted"`
	Running   bool        `json:"running"`
	LastPass  string      `json:"last_pass,omitempty"`
	LastError *crawlError `json:"last_error,omitempty"`
	Stats     crawlStats  `json:"stats"`
}

type crawlError struct {
	At     string `json:"at"`
	Detail string `json:"detail"`
}

// crawlStats are the counts of a source. Lists counts the lists of hosts or collections that it
// reads; some of them have ended or fail. Queued counts known repositories that are fetched again.
type crawlStats struct {
	Lists   int   `json:"lists"`
	Ended   int   `json:"ended"`
	Failing int   `json:"failing"`
	Pages   int64 `json:"pages"`
	Listed  int64 `json:"listed"`
	Found   int64 `json:"found"`
	Queued  int64 `json:"queued"`
}

func (c *Crawl) item() crawlItem {
	it := crawlItem{URL: c.URL, Kind: c.Kind, Persisted: c.Persisted, Running: c.Running,
		LastPass: moment(c.PassEnded),
		Stats: crawlStats{Lists: c.Lists, Ended: c.Ended, Failing: c.Failing, Pages: c.Pages,
			Listed: c.Listed, Found: c.Found, Queued: c.Queued}}
	if !c.FailedAt.IsZero() {
		it.LastError = &crawlError{At: moment(c.FailedAt), Detail: c.Failure}
	}
	return it
}

var errNoCrawler = wire.Refuse("MethodNotImplemented", "this daemon crawls nothing")

// crawlSources shows and changes what the crawler reads.
type crawlSources struct{ crawler Crawler }

// list handles GET /crawler/sources.
func (s *crawlSources) list(w http.ResponseWriter, r *http.Request) error {
	if s.crawler.Sources == nil {
		return errNoCrawler
	}
	if _, err := wire.ParseQuery(r); err != nil {
		return err
	}
	items := []crawlItem{}
	for _, c := range s.crawler.Sources() {
		items = append(items, c.item())
	}
	wire.WriteJSON(w, http.StatusOK, items)
	return nil
}

// read returns the source that a body names.
func (s *crawlSources) read(
	w http.ResponseWriter, r *http.Request,
) (c store.CrawlSource, err error) {
	var body struct {
		URL  *string `json:"url"`
		Kind *string `json:"kind"`
	}
	if err := wire.ReadObject(w, r, objectBytesMax, &body); err != nil {
		return c, err
	}
	switch {
	case s.crawler.Parse == nil:
		return c, errNoCrawler
	case body.URL == nil:
		return c, wire.Invalid("the body lacks url")
	case body.Kind == nil:
		return c, wire.Invalid("the body lacks kind")
	}
	if c, err = s.crawler.Parse(*body.Kind, *body.URL); err != nil {
		return c, wire.Invalid("%v", err)
	}
	return c, nil
}

// add handles POST /crawler/sources.
func (s *crawlSources) add(w http.ResponseWriter, r *http.Request) error {
	c, err := s.read(w, r)
	if err != nil {
		return err
	}
	if s.crawler.Add == nil || s.crawler.Sources == nil {
		return errNoCrawler
	}
	all := s.crawler.Sources()
	known := slices.ContainsFunc(all, func(have Crawl) bool { return have.CrawlSource == c })
	if n := len(all); n >= crawlsMax && !known {
		return wire.Invalid("%d sources are crawled, the maximum", n)
	}
	if err := s.crawler.Add(c); err != nil {
		return err
	}
	writeCrawl(w, http.StatusCreated, c, "")
	return nil
}

// remove handles DELETE /crawler/sources.
func (s *crawlSources) remove(w http.ResponseWriter, r *http.Request) error {
	return s.drop(w, r, s.crawler.Remove, "no crawl source %s is there", staysRemoved)
}

// forget handles DELETE /crawler/cursors.
func (s *crawlSources) forget(w http.ResponseWriter, r *http.Request) error {
	return s.drop(w, r, s.crawler.Forget, "crawl source %s has no cursor", "")
}

func (s *crawlSources) drop(
	w http.ResponseWriter, r *http.Request, do func(store.CrawlSource) error, missing, note string,
) error {
	c, err := s.read(w, r)
	if err != nil {
		return err
	}
	if do == nil {
		return errNoCrawler
	}
	named := func(have Crawl) bool { return have.CrawlSource == c && have.Named }
	if s.crawler.Sources == nil || !slices.ContainsFunc(s.crawler.Sources(), named) {
		note = ""
	}
	err = do(c)
	if errors.Is(err, store.ErrNotFound) {
		return wire.Refuse("NotFound", missing, wire.Echo(c.Kind+"::"+c.URL))
	}
	if err != nil {
		return err
	}
	writeCrawl(w, http.StatusOK, c, note)
	return nil
}

func writeCrawl(w http.ResponseWriter, status int, c store.CrawlSource, note string) {
	wire.WriteJSON(w, status, struct {
		URL  string `json:"url"`
		Kind string `json:"kind"`
		Note string `json:"note,omitempty"`
	}{c.URL, c.Kind, note})
}
