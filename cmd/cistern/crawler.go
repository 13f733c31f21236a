package main

import (
	"slices"

	"cistern/api/admin"
	"cistern/backfill/discover"
	"cistern/store"
)

// crawlSources returns where repositories are discovered: the sources of --crawl, and for mode full
// an implied source for the hosts of each relay. The hosts are listed themselves because a relay
// does not know accounts that have been silent since it started.
func (c *Config) crawlSources() []discover.Source {
	sources := slices.Clone(c.Crawl)
	for _, r := range c.Relays {
		src, err := discover.ParseSource(discover.SourceHosts, r.URL)
		same := func(s discover.Source) bool { return s.URL == src.URL }
		if err != nil || slices.ContainsFunc(sources, same) {
			continue // the relay has a path, or --crawl says how to crawl it
		}
		src.Implied = true
		sources = append(sources, src)
	}
	return sources
}

// crawler returns what the private listener needs to show and control discovery.
func (d *daemon) crawler() admin.Crawler {
	source := func(do func(discover.Source) error) func(store.CrawlSource) error {
		return func(c store.CrawlSource) error {
			return do(discover.Source{Kind: c.Kind, URL: c.URL})
		}
	}
	return admin.Crawler{
		Sources: func() []admin.Crawl {
			var all []admin.Crawl
			for _, c := range d.discover.Crawls() {
				all = append(all, apiCrawl(c))
			}
			return all
		},
		Parse: func(kind, url string) (store.CrawlSource, error) {
			s, err := discover.ParseSource(kind, url)
			return store.CrawlSource{Kind: s.Kind, URL: s.URL}, err
		},
		Add: source(d.discover.AddCrawl), Remove: source(d.discover.RemoveCrawl),
		Forget: source(d.discover.ForgetCrawlCursor),
	}
}

func apiCrawl(c discover.CrawlStatus) admin.Crawl {
	return admin.Crawl{
		CrawlSource: store.CrawlSource{Kind: c.Kind, URL: c.URL},
		Named:       c.Named, Implied: c.Implied, Persisted: c.Persisted, Running: c.Running,
		Lists: c.Lists, Ended: c.Ended, Failing: c.Failing,
		Pages: c.Pages, Listed: c.Listed, Queued: c.Queued, Found: c.Found,
		PassEnded: c.PassEnded, FailedAt: c.FailedAt, Failure: c.Failure,
	}
}
