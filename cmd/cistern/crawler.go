package main

import (
	"errors"
	"slices"
	"strings"
	"time"

	"cistern/api"
	"cistern/backfill"
	"cistern/store"
)

func (c *Config) setCrawl(s string) error {
	kind, origin, ok := strings.Cut(s, "::")
	if !ok {
		return errors.New("want KIND::URL, as in repos::https://relay.example.com")
	}
	src, err := backfill.ParseSource(kind, origin)
	if err == nil {
		c.Crawl = append(c.Crawl, src)
	}
	return err
}

// parsePeriod reads a duration that is not too short for asking hosts again and again.
func parsePeriod(s string) (time.Duration, error) {
	d, err := parseAge(s)
	if err != nil || d < time.Minute {
		return 0, errors.New("want a duration of a minute or more, like 6h or 7d")
	}
	return d, nil
}

// crawlSources is where repositories are discovered: what --crawl names, and while everything is followed the hosts of
// the relays. Relays do not know who has been quiet since they began, so that their hosts are listed themselves.
func (c *Config) crawlSources() []backfill.Source {
	sources := slices.Clone(c.Crawl)
	for _, r := range c.Relays {
		src, err := backfill.ParseSource(backfill.SourceHosts, r.URL)
		if err != nil || slices.ContainsFunc(sources, func(s backfill.Source) bool { return s.URL == src.URL }) {
			continue // it has a path, or the operator has chosen how it is crawled
		}
		src.Implied = true
		sources = append(sources, src)
	}
	return sources
}

// crawler is discovery as the private listener drives it.
func (d *daemon) crawler() api.Crawler {
	source := func(do func(backfill.Source) error) func(store.CrawlSource) error {
		return func(c store.CrawlSource) error { return do(backfill.Source{Kind: c.Kind, URL: c.URL}) }
	}
	return api.Crawler{
		Sources: func() []api.Crawl {
			var all []api.Crawl
			for _, c := range d.backfill.Crawls() {
				all = append(all, apiCrawl(c))
			}
			return all
		},
		Parse: func(kind, url string) (store.CrawlSource, error) {
			s, err := backfill.ParseSource(kind, url)
			return store.CrawlSource{Kind: s.Kind, URL: s.URL}, err
		},
		Add: source(d.backfill.AddCrawl), Remove: source(d.backfill.RemoveCrawl), Forget: source(d.backfill.ForgetCrawlCursor),
	}
}

func apiCrawl(c backfill.CrawlStatus) api.Crawl {
	return api.Crawl{
		CrawlSource: store.CrawlSource{Kind: c.Kind, URL: c.URL}, Named: c.Named, Persisted: c.Persisted, Running: c.Running,
		Lists: c.Lists, Ended: c.Ended, Failing: c.Failing, Pages: c.Pages, Listed: c.Listed, Queued: c.Queued, Found: c.Found,
		PassEnded: c.PassEnded, FailedAt: c.FailedAt, Failure: c.Failure,
	}
}
