package backfill

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"cistern/backfill/hosts"
	"cistern/backfill/pace"
	"cistern/ingest/identity"
	"cistern/store"
)

// page is one answer of listRepos or listReposByCollection.
type page struct {
	Cursor string          `json:"cursor"`
	Repos  entries[listed] `json:"repos"`
}

// crawlCommasMax bounds the entries of a page, of 60 bytes each in memory. A page in order has some 5000 commas.
const crawlCommasMax = 64 << 10

// entries are those of a page. An entry takes two bytes of an answer and twenty times that of memory, so that they
// are counted first.
type entries[T any] []T

// UnmarshalJSON reads an array.
func (l *entries[T]) UnmarshalJSON(text []byte) error {
	if n := bytes.Count(text, []byte{','}); n > crawlCommasMax {
		return fmt.Errorf("list with %d commas", n)
	}
	return json.Unmarshal(text, (*[]T)(l))
}

// listed is what a host says of a repository.
type listed struct {
	DID    string `json:"did"`
	Rev    string `json:"rev"`
	Active *bool  `json:"active"`
	Status string `json:"status"`
}

func (l listed) active() bool { return l.Active == nil || *l.Active }

// hidden is the status of an account that is not to be had. Troubles of a host with another host say nothing of accounts.
func (l listed) hidden() (s store.Status, ok bool) {
	if l.active() || l.Status == "throttled" || l.Status == "desynchronized" {
		return 0, false
	}
	switch l.Status {
	case "deleted":
		return store.StatusDeleted, true
	case "takendown":
		return store.StatusTakendown, true
	case "suspended":
		return store.StatusSuspended, true
	case "deactivated":
		return store.StatusDeactivated, true
	}
	return store.StatusInactive, true
}

// hostPage is one answer of listHosts.
type hostPage struct {
	Cursor string              `json:"cursor"`
	Hosts  entries[listedHost] `json:"hosts"`
}

type listedHost struct {
	Hostname string `json:"hostname"`
	Status   string `json:"status"`
}

// next is the cursor of the page after one that was asked for with a cursor; "" at the end.
func next(cursor, answered string) string {
	if answered == cursor {
		return ""
	}
	return answered
}

// listRepos asks a host, by its base URL, for a page. The answer must begin within a time of at most
// Options.IdleTimeout.
func (r *Runner) listRepos(ctx context.Context, base, cursor string,
	within time.Duration) (*page, error) {
	var p page
	query := url.Values{"limit": {fmt.Sprint(crawlPage)}}
	if err := r.askPage(ctx, base, "com.atproto.sync.listRepos", query, cursor, within, &p); err != nil {
		return nil, err
	}
	return &p, checkCursor(p.Cursor)
}

// listCollection asks for a page of those that hold a collection.
func (r *Runner) listCollection(ctx context.Context, base, collection, cursor string) (*page, error) {
	var p page
	query := url.Values{"limit": {fmt.Sprint(crawlPage)}, "collection": {collection}}
	if err := r.askPage(ctx, base, "com.atproto.sync.listReposByCollection", query, cursor, r.opts.IdleTimeout, &p); err != nil {
		return nil, err
	}
	return &p, checkCursor(p.Cursor)
}

// listHosts asks a relay for a page.
func (r *Runner) listHosts(ctx context.Context, base, cursor string) (*hostPage, error) {
	var p hostPage
	query := url.Values{"limit": {fmt.Sprint(crawlPage)}}
	if err := r.askPage(ctx, base, "com.atproto.sync.listHosts", query, cursor, r.opts.IdleTimeout, &p); err != nil {
		return nil, err
	}
	return &p, checkCursor(p.Cursor)
}

func checkCursor(cursor string) error {
	if len(cursor) > cursorMax {
		return fmt.Errorf("cursor of %d bytes", len(cursor))
	}
	return nil
}

func (r *Runner) askPage(ctx context.Context, base, method string, query url.Values, cursor string,
	within time.Duration, into any) error {
	if cursor != "" {
		query.Set("cursor", cursor)
	}
	body, err := r.query(ctx, base, method, query, crawlBodyMax, within)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("answer of %s: %w: %v", method, errNoAnswer, err)
	}
	return nil
}

// errNoAnswer: what came is not what was asked for.
var errNoAnswer = errors.New("it does not parse")

// query asks a host, by its base URL, as its limits allow. The answer has at most bodyMax bytes, and
// must begin within a time of at most Options.IdleTimeout.
func (r *Runner) query(ctx context.Context, base, method string, query url.Values, bodyMax int64,
	within time.Duration) ([]byte, error) {
	origin, _, err := identity.ParseBase(base)
	if err != nil {
		return nil, fmt.Errorf("host %w", err)
	}
	id, err := r.hostID(identity.HostOf(origin))
	if err != nil {
		return nil, err
	}
	permit, err := r.hosts.Admit(ctx, id)
	if err != nil {
		return nil, err
	}
	a := answered{}
	body, err := r.send(ctx, strings.TrimSuffix(base, "/")+"/xrpc/"+method+"?"+query.Encode(), bodyMax, within, &a)
	a.err = err
	if errors.Is(err, errLong) {
		a.err = nil // not a fault of the host that others should know of
	}
	r.dismiss(ctx, permit, a)
	return body, err
}

// answered is how a request ended that belongs to no task.
type answered struct {
	err    error
	header http.Header   // of the answer, nil if there was none
	took   time.Duration // until it began
	bytes  int64         // of its body
}

// dismiss gives back the permit of such a request.
func (r *Runner) dismiss(ctx context.Context, p *hosts.Permit, a answered) {
	defer p.Close()
	v := verdict{spoke: true}
	if a.err != nil { // a request that we cancelled says nothing about the host
		v = classify(ctx, a.err, r.opts.Now())
	}
	p.Heard(pace.Query, a.header, a.took)
	if v.ending == endRetry || v.ending == endGone {
		p.Note(v.outcome(), v.failure())
	}
	p.Received(a.bytes)
}

// errLong: an answer is longer than any in order.
var errLong = errors.New("answer is too long")

func (r *Runner) send(ctx context.Context, target string, bodyMax int64, within time.Duration,
	a *answered) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, crawlTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", r.opts.UserAgent)
	begin := time.Now()
	late := time.AfterFunc(within, cancel)
	resp, err := r.client.Do(req)
	if inTime := late.Stop(); err != nil && (!inTime || hosts.TimedOut(ctx, err)) {
		return nil, fmt.Errorf("no answer within %s: %w", within, err)
	}
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	a.header, a.took = resp.Header, time.Since(begin)
	if resp.StatusCode != http.StatusOK {
		return nil, hosts.ReadAnswer(resp, resp.Body, r.opts.Now())
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, bodyMax+1))
	a.bytes = int64(len(body))
	if err != nil {
		return nil, err
	}
	if int64(len(body)) > bodyMax {
		return nil, fmt.Errorf("more than %d bytes: %w", bodyMax, errLong)
	}
	if kind := hosts.ContentType(resp.Header); kind != "application/json" && !json.Valid(body) {
		return nil, fmt.Errorf("host answered 200 with %s: %w", kind, errNoAnswer)
	}
	return body, nil
}
