package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"cistern/api/atproto"
	"cistern/api/dashboard"
	"cistern/api/frontpage"
	"cistern/api/openapi"
	"cistern/api/wire"
	"cistern/ingest/identity"
	"cistern/store"
)

// front answers GET / of the public listener: for browsers with a page, else with a short text.
type front struct {
	page    *frontpage.Page
	store   *store.Store
	xrpc    *xrpc
	lag     func() (lag time.Duration, following bool) // of the firehoses
	names   bool                                       // handles are looked up
	status  bool                                       // there is a status page
	version string
}

// show handles GET /.
func (f *front) show(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Vary", "Accept")
	if !strings.Contains(strings.Join(r.Header.Values("Accept"), ","), "text/html") {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, bannerText) // an error concerns the client only
		return nil
	}
	q, err := wire.ParseQuery(r)
	if err != nil {
		return err
	}
	return f.xrpc.respond(w, r, q, xrpcLookup{weight: 1,
		look: func(_ context.Context, q wire.Query) (atproto.Answer, error) {
			return func(ctx context.Context) ([]byte, error) {
				return f.answer(ctx, q, frontpage.Base(r))
			}, nil
		}})
}

// part handles GET /page/{file}.
func (f *front) part(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("file")
	if strings.HasSuffix(name, ".html") || !f.page.Serve(w, r, name) { // page.html is a template
		return wire.Refuse("NotFound", "there is nothing at %s", wire.Echo(r.URL.Path))
	}
	return nil
}

// answer returns the page, with addresses that begin with base, or wire.ErrUnchanged.
func (f *front) answer(ctx context.Context, q wire.Query, base string) ([]byte, error) {
	facts, err := f.facts(ctx)
	if err != nil {
		return nil, err
	}
	facts.Base = base
	page, err := f.page.Render(facts)
	if err != nil {
		return nil, err
	}
	dashboard.Head(q.Header, "page.html")
	hash := sha256.Sum256(page)
	return page, q.Version(hex.EncodeToString(hash[:12]), frontCache)
}

// facts returns what the page shows: as much work for any number of records.
func (f *front) facts(ctx context.Context) (frontpage.Facts, error) {
	total, _, err := f.store.CollectionTotal("", 0)
	if err != nil {
		return frontpage.Facts{}, err
	}
	facts := frontpage.Facts{
		Version: f.version, Ephemeral: f.store.Ephemeral(), Status: f.status,
		Accounts: total.Repos, Records: total.Records, Collections: f.store.Counts()["collection_names"],
		Oldest: f.store.Oldest(), Head: f.store.Head(),
	}
	facts.Lag, facts.Following = f.lag()
	if facts.Head >= f.store.Tail() {
		us, err := f.store.TimeOf(facts.Head)
		if err != nil {
			return facts, err
		}
		facts.Newest = time.UnixMicro(us).UTC()
	}
	facts.Example, err = f.newest(ctx)
	facts.Answered = func(r openapi.Route) bool { return f.answers(r, facts.Example) }
	return facts, err
}

// newest returns what examples are about: the newest of the last events whose record is still
// shown, and rather one of the firehose. The values are empty if the last events have no such
// record.
func (f *front) newest(ctx context.Context) (about openapi.Values, err error) {
	head := f.store.Head()
	var live, copied []store.Event // the newest last
	for next := max(f.store.Tail(), head-min(head, frontEvents-1)); next <= head; {
		from := next
		next, err = f.store.ReadLogBodies(ctx, from, int(head+1-from), func(e *store.Event) error {
			switch {
			case e.Kind != store.KindRecord || e.Action == store.Delete:
			case e.Live:
				live = append(live, placeOf(e))
			default:
				copied = append(copied, placeOf(e))
			}
			return nil
		})
		if errors.Is(err, store.ErrOutdatedCursor) { // pruned meanwhile
			return about, nil
		}
		if err != nil {
			return about, err
		}
		if next == from { // the next event must not be shown yet
			break
		}
	}
	for _, e := range slices.Backward(append(copied, live...)) {
		about, found, err := f.example(&e)
		if found || err != nil {
			return about, err
		}
	}
	return about, nil
}

// placeOf returns the part of an event that says which record it is about.
func placeOf(e *store.Event) store.Event {
	return store.Event{DID: e.DID, Collection: bytes.Clone(e.Collection), Rkey: bytes.Clone(e.Rkey)}
}

// example returns examples about the record of an event. found is false if it is not shown now.
func (f *front) example(e *store.Event) (about openapi.Values, found bool, err error) {
	row, err := f.store.Repo(e.DID)
	if errors.Is(err, store.ErrNotFound) || err == nil && atproto.Hidden(&row) != nil {
		return about, false, nil
	}
	if err != nil {
		return about, false, err
	}
	rec, err := f.store.Record(&row, string(e.Collection), string(e.Rkey))
	if errors.Is(err, store.ErrNotFound) {
		return about, false, nil
	}
	about = openapi.Values{DID: e.DID, Handle: row.Handle, Collection: string(e.Collection),
		Rkey: string(e.Rkey), CID: rec.CID.String(), Host: identity.HostOf(row.PDS)}
	return about, err == nil, err
}

// answers reports whether this server answers a route. With an example it also wants what the route
// is asked about.
func (f *front) answers(r openapi.Route, about openapi.Values) bool {
	method, isMethod := strings.CutPrefix(r.Path, "/xrpc/")
	some := about.DID != ""
	switch {
	case strings.HasSuffix(method, ".resolveHandle"):
		return f.names && !(some && about.Handle == "")
	case strings.HasSuffix(method, ".getHostStatus"):
		return !(some && about.Host == "")
	case r.Bare: // queries for links
		return f.xrpc.links.Enabled() && !f.store.Ephemeral()
	case !f.store.Ephemeral():
		return true
	case isMethod && method != "_health" && !strings.HasPrefix(method, "network.bsky.jetstream."):
		return slices.Contains(recordless, method)
	}
	return r.Path != "/export" && r.Path != "/collections/{collection}/records"
}
