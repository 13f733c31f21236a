package backfill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"cistern/store"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Source is a host whose listing names repositories to follow.
type Source struct {
	Kind string // "repos": com.atproto.sync.listRepos
	URL  string // origin: scheme, host and port
}

// SourceRepos is the kind that lists all repositories of a host.
const SourceRepos = "repos"

// String is KIND::URL.
func (s Source) String() string { return s.Kind + "::" + s.URL }

func (s Source) validate() error {
	if s.Kind != SourceRepos {
		return fmt.Errorf("crawl source %q: kind %q is not %q", s, s.Kind, SourceRepos)
	}
	u, err := url.Parse(s.URL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return fmt.Errorf("crawl source %q: %q is not the http or https origin of a host", s, s.URL)
	}
	return nil
}

// page is one answer of listRepos.
type page struct {
	Cursor string `json:"cursor"`
	Repos  []struct {
		DID    string `json:"did"`
		Active *bool  `json:"active"`
	} `json:"repos"`
}

// crawl lists a source over and over: to its end, then after a pause from the start, since a list
// may grow anywhere. It goes on where it left off.
func (r *Runner) crawl(ctx context.Context, s Source, kick <-chan struct{}) error {
	failures := 0
	for ctx.Err() == nil {
		cursor, err := r.store.CrawlCursor(s.String())
		if err != nil {
			return quiet(ctx, ours(err))
		}
		if r.store.Counts()["pending"] > r.opts.CrawlPendingMax {
			sleep(ctx, crawlPause, nil)
			continue
		}
		d, err := r.crawlPage(ctx, s, cursor)
		var failure *storeError
		if errors.As(err, &failure) {
			return quiet(ctx, err)
		}
		if err != nil && ctx.Err() == nil {
			r.metrics.pages.WithLabelValues("error").Inc()
			d = r.crawlDelay(err, failures)
			failures++
			r.opts.Logger.Warn("crawl failed", "source", s.String(), "retry", d, "err", err)
		} else {
			failures = 0
		}
		for until := r.opts.Now().Add(d); ctx.Err() == nil && r.opts.Now().Before(until); {
			sleep(ctx, min(until.Sub(r.opts.Now()), sleepMax), kick)
		}
	}
	return nil
}

// crawlDelay is what the source asks for, or grows from a second.
func (r *Runner) crawlDelay(err error, failures int) time.Duration {
	var answer *answerError
	if errors.As(err, &answer) && answer.wait > 0 {
		return answer.wait
	}
	return r.jitter(min(crawlRetryMax, crawlPause<<min(failures, 10)))
}

// crawlPage enqueues what a page names, and says how long to wait before the next.
func (r *Runner) crawlPage(ctx context.Context, s Source, cursor string) (time.Duration, error) {
	p, err := r.listRepos(ctx, s, cursor)
	if err != nil {
		return 0, err
	}
	r.metrics.pages.WithLabelValues("ok").Inc()
	var dids []string
	for _, entry := range p.Repos {
		if entry.Active != nil && !*entry.Active {
			continue // its host says there is nothing to fetch
		}
		if _, err := syntax.ParseDID(entry.DID); err == nil {
			dids = append(dids, entry.DID)
		}
	}
	next, d := p.Cursor, time.Duration(0)
	if next == "" || next == cursor || len(p.Repos) == 0 {
		next, d = "", crawlAgain
	}
	found, err := r.discover(s, dids, next)
	if err != nil {
		return 0, err
	}
	if found > 0 {
		r.metrics.found.Add(float64(found))
		r.note(0)
	} else {
		d = max(d, crawlKnown)
	}
	if next == "" {
		r.opts.Logger.Info("crawl reached the end", "source", s.String(), "again", d)
	}
	return d, nil
}

// discover adds the repositories not known yet and moves the cursor, in one batch: after a crash
// the page is either done or listed again.
func (r *Runner) discover(s Source, dids []string, next string) (found int, err error) {
	found, wait, err := r.addUnknown(s, dids, next)
	if err == nil {
		err = ours(wait())
	}
	return found, err
}

func (r *Runner) addUnknown(s Source, dids []string, next string) (found int, wait func() error, err error) {
	// Several locks are taken in the order of DIDs.
	slices.Sort(dids)
	dids = slices.Compact(dids)
	b := r.store.NewBatch()
	for _, did := range dids {
		defer r.store.Lock(did)()
		row, err := r.store.RepoOrNew(did)
		if err != nil {
			b.Discard()
			return 0, nil, ours(err)
		}
		if row.Known() {
			continue
		}
		row.State, row.Tracked = store.StatePending, store.ByDiscovery
		row.Pending = store.PendingKey{Priority: store.PriorityDiscovery}
		b.PutRepo(&row)
		found++
	}
	b.SetCrawlCursor(s.String(), next)
	wait, err = b.Commit()
	return found, wait, ours(err)
}

func (r *Runner) listRepos(ctx context.Context, s Source, cursor string) (*page, error) {
	ctx, cancel := context.WithTimeout(ctx, crawlTimeout)
	defer cancel()
	query := url.Values{"limit": {fmt.Sprint(crawlPage)}}
	if cursor != "" {
		query.Set("cursor", cursor)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/xrpc/com.atproto.sync.listRepos?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", r.opts.UserAgent)
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, r.readAnswer(resp, &transfer{body: resp.Body})
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, crawlBodyMax+1))
	if err != nil {
		return nil, err
	}
	if len(body) > crawlBodyMax {
		return nil, fmt.Errorf("page exceeds %d bytes", crawlBodyMax)
	}
	var p page
	if err := json.Unmarshal(body, &p); err != nil {
		return nil, fmt.Errorf("page is no listRepos answer: %w", err)
	}
	if len(p.Cursor) > cursorMax {
		return nil, fmt.Errorf("cursor of %d bytes", len(p.Cursor))
	}
	return &p, nil
}
