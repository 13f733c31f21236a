package discover

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"cistern/backfill/hosts"
	"cistern/ingest/identity"
	"cistern/store"
)

// page is one answer of listRepos or listReposByCollection.
type page struct {
	Cursor string          `json:"cursor"`
	Repos  entries[listed] `json:"repos"`
}

// crawlCommasMax bounds the entries of a page, of 60 bytes each in memory. A correct page has some
// 5000 commas.
const crawlCommasMax = 64 << 10

// entries are the entries of a page. One takes two bytes of an answer and twenty times as much
// memory, so that they are counted first.
type entries[T any] []T

// UnmarshalJSON reads an array.
func (l *entries[T]) UnmarshalJSON(text []byte) error {
	if n := bytes.Count(text, []byte{','}); n > crawlCommasMax {
		return fmt.Errorf("list with %d commas", n)
	}
	return json.Unmarshal(text, (*[]T)(l))
}

// listed is the entry of a repository in a page of a list.
type listed struct {
	DID    string `json:"did"`
	Rev    string `json:"rev"`
	Active *bool  `json:"active"`
	Status string `json:"status"`
}

func (l listed) active() bool { return l.Active == nil || *l.Active }

// hidden returns the status of an unavailable account. A status that only reports trouble between
// two hosts does not count.
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

// next returns the cursor of the page after one that was requested with cursor; "" at the end.
func next(cursor, answered string) string {
	if answered == cursor {
		return ""
	}
	return answered
}

// listRepos asks a host, by its base URL, for a page. The answer must begin within a time of at
// most Options.IdleTimeout.
func (r *Runner) listRepos(ctx context.Context, base, cursor string,
	within time.Duration) (*page, error) {
	var p page
	query := url.Values{"limit": {fmt.Sprint(crawlPage)}}
	if err := r.askPage(ctx, base, "com.atproto.sync.listRepos", query, cursor, within, &p); err != nil {
		return nil, err
	}
	return &p, checkCursor(p.Cursor)
}

// listCollection asks for a page of the repositories that have a collection.
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
		return fmt.Errorf("answer of %s: %w: %v", method, hosts.ErrMalformed, err)
	}
	return nil
}

// hostID returns the store's id of a host.
func (r *Runner) hostID(host string) (uint32, error) {
	id, err := r.store.HostID(host)
	if errors.Is(err, store.ErrCorrupt) {
		return 0, ours(err)
	}
	if err != nil {
		return 0, &hosts.ResolveError{Err: fmt.Errorf("%w: %w", identity.ErrInvalid, err)}
	}
	return id, nil
}

// query asks a host, by its base URL, as its limits allow. The answer has at most bodyMax bytes,
// and must begin within a time of at most Options.IdleTimeout.
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
	target := strings.TrimSuffix(base, "/") + "/xrpc/" + method + "?" + query.Encode()
	return r.hosts.Query(ctx, id, target, bodyMax, within)
}
