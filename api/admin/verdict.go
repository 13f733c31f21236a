package admin

import (
	"slices"
	"time"

	"cistern/verdict"
)

// verdict judges the daemon by the figures of an answer and by what only this package knows.
func (o *overview) verdict(now time.Time, body *overviewBody) verdict.Verdict {
	f := verdict.Facts{Now: now, Unready: o.stats.unready(), Paused: body.Stats.Paused,
		Alerts: o.alerts(), Sources: o.following(), Tracking: o.tracking(),
		Backups: o.copies.failing(now), Ignored: o.ignored()}
	if p := body.Stats.Phase; p != nil {
		f.Phase = &verdict.Phase{Name: p.Phase, Wanted: p.Wanted, Reached: p.Reached,
			Failure: p.Failure, Reason: p.Reason}
	}
	if body.Disk != nil {
		f.DiskShort = body.Disk.short
	}
	return verdict.Of(f)
}

// following returns the firehoses as facts of a verdict.
func (o *overview) following() (all []verdict.Source) {
	if o.sources.firehose.Sources == nil {
		return nil
	}
	for _, s := range o.sources.firehose.Sources() {
		all = append(all, verdict.Source{URL: s.URL, Running: s.Running, Direct: s.Direct,
			Failure: s.LastFailure.Detail})
	}
	return all
}

// tracking returns how many repositories are tracked, and whether others can be found. Without
// signals, mode filter follows what a crawl source lists, but for the sources that mode full
// implies.
func (o *overview) tracking() *verdict.Tracking {
	f, counts := o.stats.store.Filter(), o.stats.store.Counts()
	t := verdict.Tracking{Repos: counts["repos"] - counts["idle"], Full: f.Full()}
	var crawls []Crawl
	if o.crawler.Sources != nil {
		crawls = o.crawler.Sources()
	}
	sources := len(o.following()) + len(crawls)
	switch {
	case t.Full, len(f.Signals()) > 0:
		t.Finds = sources > 0
	default:
		t.Finds = slices.ContainsFunc(crawls, func(c Crawl) bool { return !c.Implied })
	}
	return &t
}
