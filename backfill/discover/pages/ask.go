package pages

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"time"

	"cistern/backfill/hosts"
)

// Repos asks a host, by its base URL, for the page of its repositories at a cursor. The answer must
// begin within the given time.
func Repos(ctx context.Context, t *hosts.Table, base, cursor string,
	within time.Duration) (*Page, error) {
	var p Page
	if err := ask(ctx, t, base, "listRepos", url.Values{}, cursor, within, &p); err != nil {
		return nil, err
	}
	return &p, checkCursor(p.Cursor)
}

// Collection asks for the page of the repositories that have a collection.
func Collection(ctx context.Context, t *hosts.Table, base, collection, cursor string,
	within time.Duration) (*Page, error) {
	var p Page
	of := url.Values{"collection": {collection}}
	if err := ask(ctx, t, base, "listReposByCollection", of, cursor, within, &p); err != nil {
		return nil, err
	}
	return &p, checkCursor(p.Cursor)
}

// Hosts asks a relay for the page of its hosts at a cursor.
func Hosts(ctx context.Context, t *hosts.Table, base, cursor string,
	within time.Duration) (*HostPage, error) {
	var p HostPage
	if err := ask(ctx, t, base, "listHosts", url.Values{}, cursor, within, &p); err != nil {
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

// ask decodes the answer of a method of com.atproto.sync.
func ask(ctx context.Context, t *hosts.Table, base, method string, params url.Values,
	cursor string, within time.Duration, into any) error {
	method = "com.atproto.sync." + method
	params.Set("limit", fmt.Sprint(entriesMax))
	if cursor != "" {
		params.Set("cursor", cursor)
	}
	body, err := t.Query(ctx, base, method, params, bodyMax, within)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("answer of %s: %w: %v", method, hosts.ErrMalformed, err)
	}
	return nil
}
