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
	Cursor string   `json:"cursor"`
	Repos  []listed `json:"repos"`
}

// listed is what a host says of a repository.
type listed struct {
	DID    string `json:"did"`
	Rev    string `json:"rev"`
	Active *bool  `json:"active"`
	Status string `json:"status"`
}

func (l listed) active() bool { return l.Active == nil || *l.Active }

// next is the cursor of the page after p, which was asked for with a cursor; "" at the end.
func (p *page) next(cursor string) string {
	if p.Cursor == cursor || len(p.Repos) == 0 {
		return ""
	}
	return p.Cursor
}

// crawl lists a source over and over: to its end, then after a pause from the start, since a list
// may grow anywhere. It goes on where it left off.
func (r *Runner) crawl(ctx context.Context, s Source, kick <-chan struct{}) error {
	failures := 0
	for r.crawlGate.pass(ctx) {
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
		r.rest(ctx, d, kick)
	}
	return nil
}

// rest lets a time of our clock pass, which signals may have moved.
func (r *Runner) rest(ctx context.Context, d time.Duration, kick <-chan struct{}) {
	for until := r.opts.Now().Add(d); ctx.Err() == nil && r.opts.Now().Before(until); {
		sleep(ctx, min(until.Sub(r.opts.Now()), sleepMax), kick)
	}
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
	p, err := r.listRepos(ctx, s.URL, cursor)
	if err != nil {
		return 0, err
	}
	r.metrics.pages.WithLabelValues("ok").Inc()
	var dids []string
	for _, entry := range p.Repos {
		if !entry.active() {
			continue // its host says there is nothing to fetch
		}
		if _, err := syntax.ParseDID(entry.DID); err == nil {
			dids = append(dids, entry.DID)
		}
	}
	next, d := p.next(cursor), time.Duration(0)
	if next == "" {
		d = crawlAgain
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

// discover adds the repositories not known yet, and then moves the cursor: after a crash the page
// is either done or listed again.
func (r *Runner) discover(s Source, dids []string, next string) (found int, err error) {
	slices.Sort(dids)
	var unknown []string
	for _, did := range slices.Compact(dids) {
		switch _, err := r.store.Repo(did); {
		case errors.Is(err, store.ErrNotFound):
			unknown = append(unknown, did)
		case err != nil:
			return 0, ours(err)
		}
	}
	for len(unknown) > crawlLocksMax {
		n, err := r.addUnknown(unknown[:crawlLocksMax], func(*store.Batch) {})
		if err != nil {
			return 0, err
		}
		found += n
		unknown = unknown[crawlLocksMax:]
	}
	n, err := r.addUnknown(unknown, func(b *store.Batch) { b.SetCrawlCursor(s.String(), next) })
	return found + n, err
}

func (r *Runner) addUnknown(dids []string, and func(b *store.Batch)) (found int, err error) {
	err = r.inBatch(dids, func(b *store.Batch, row *store.Repo) error {
		if !row.Known() {
			track(row)
			b.PutRepo(row)
			found++
		}
		return nil
	}, and)
	return found, err
}

// track has an unknown repository fetched, because a host listed it.
func track(row *store.Repo) {
	row.State, row.Tracked = store.StatePending, store.ByNetwork
	row.Pending = store.PendingKey{Priority: store.PriorityDiscovery}
}

// inBatch changes the rows of some repositories in one batch, each under its lock, and what else belongs
// into it. DIDs are in ascending order. It returns when the batch is durable.
func (r *Runner) inBatch(dids []string, change func(b *store.Batch, row *store.Repo) error, and func(b *store.Batch)) error {
	wait, err := r.commitLocked(dids, change, and)
	if err == nil {
		err = wait()
	}
	return ours(err)
}

func (r *Runner) commitLocked(dids []string, change func(b *store.Batch, row *store.Repo) error, and func(b *store.Batch)) (wait func() error, err error) {
	b := r.store.NewBatch()
	for _, did := range dids {
		defer r.store.Lock(did)()
		row, err := r.store.RepoOrNew(did)
		if err == nil {
			err = change(b, &row)
		}
		if err != nil {
			b.Discard()
			return nil, err
		}
	}
	and(b)
	return b.Commit()
}

// listRepos asks a host, by its base URL, for a page.
func (r *Runner) listRepos(ctx context.Context, base, cursor string) (*page, error) {
	ctx, cancel := context.WithTimeout(ctx, crawlTimeout)
	defer cancel()
	query := url.Values{"limit": {fmt.Sprint(crawlPage)}}
	if cursor != "" {
		query.Set("cursor", cursor)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/xrpc/com.atproto.sync.listRepos?"+query.Encode(), nil)
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
