package collections

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"cistern/api/clients"
	"cistern/api/wire"
	"cistern/store"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// typeLines is the type of JSON lines.
const typeLines = "application/x-ndjson"

// Records answers GET /collections/{collection}/records, in the order of repositories or of time.
func (c *Collections) Records(ctx context.Context, q wire.Query) ([]byte, error) {
	collection, err := q.Collection()
	if err != nil {
		return nil, err
	}
	limit, err := q.Limit(100, 1000)
	if err != nil {
		return nil, err
	}
	p := page{limit: limit, collections: c}
	switch format := q.Text("format"); {
	case format == "ndjson", format == "" && q.Accepts(typeLines):
		p.lines = true
	case format != "" && format != "json":
		return nil, wire.Invalid("format %s is neither json nor ndjson", wire.Echo(format))
	}
	p.begin()
	cursor := ""
	switch order := q.Text("order"); order {
	case "", "repo":
		cursor, err = c.byRepo(ctx, q, collection, &p)
	case "time":
		cursor, err = c.byTime(ctx, q, collection, &p)
	default:
		return nil, wire.Invalid("order %s is neither repo nor time", wire.Echo(order))
	}
	if err != nil {
		return nil, err
	}
	return p.end(q, collection, cursor), nil
}

// byRepo reads a page in the order of first imports. The cursor is an ordinal and a record key.
func (c *Collections) byRepo(
	ctx context.Context, q wire.Query, collection string, p *page,
) (string, error) {
	for _, name := range [...]string{"reverse", "did"} {
		if q.Text(name) != "" {
			return "", wire.Invalid("parameter %s needs order=time", name)
		}
	}
	var at store.RecordPlace
	if cursor := q.Text("cursor"); cursor != "" {
		number, rkey, found := strings.Cut(cursor, "/")
		n, err := strconv.ParseUint(number, 10, 64)
		if !found || err != nil || n > uint64(store.OrdinalMax) || rkey != "" && !isRecordKey(rkey) {
			return "", badCursor(cursor)
		}
		at = store.RecordPlace{Ordinal: store.Ordinal(n), Rkey: rkey}
	}
	next, ended, err := c.store.RecordsByRepo(ctx, collection, at, rowsMax, p.add)
	if err != nil || ended && p.n == 0 {
		return "", err
	}
	return strconv.FormatUint(uint64(next.Ordinal), 10) + "/" + next.Rkey, nil
}

// byTime reads a page by record key. The cursor is a record key and an ordinal.
func (c *Collections) byTime(
	ctx context.Context, q wire.Query, collection string, p *page,
) (string, error) {
	reverse, err := q.Bool("reverse")
	if err != nil {
		return "", err
	}
	dids, err := accounts(q)
	if err != nil {
		return "", err
	}
	o := store.TimeOrder{Collection: collection, DIDs: dids, Reverse: reverse, Limit: p.limit,
		ReposMax: c.reposMax, Yield: func() error { return clients.Yield(ctx) }}
	if cursor := q.Text("cursor"); cursor != "" {
		rkey, number, found := strings.Cut(cursor, "/")
		n, err := strconv.ParseUint(number, 10, 64)
		if !found || !isRecordKey(rkey) || err != nil || n > uint64(store.OrdinalMax) {
			return "", badCursor(cursor)
		}
		o.After = store.TimedPlace{Rkey: rkey, Ordinal: store.Ordinal(n)}
	}
	next, ended, err := c.store.RecordsByTime(ctx, o, p.add)
	if errors.Is(err, store.ErrTooManyRepos) {
		return "", wire.Refuse("TooManyRepositories",
			"order=time: %v; name accounts by did, or use order=repo", err)
	}
	if err != nil || ended && p.n == 0 {
		return "", err
	}
	return next.Rkey + "/" + strconv.FormatUint(uint64(next.Ordinal), 10), nil
}

// accounts returns the values of the repeated parameter did, without duplicates; nil if it is
// missing.
func accounts(q wire.Query) ([]string, error) {
	all := slices.Clone(q.All("did"))
	if len(all) > didsMax {
		return nil, wire.Invalid("parameter did is given %d times: want at most %d", len(all), didsMax)
	}
	for _, did := range all {
		if reason := wire.BadDID(did); reason != "" {
			return nil, wire.Invalid("did %s is not a DID: %s", wire.Echo(did), reason)
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

func isRecordKey(text string) bool {
	_, err := syntax.ParseRecordKey(text)
	return err == nil
}

func badCursor(cursor string) error {
	return wire.Invalid("cursor %s was not given by a list in this order", wire.Echo(cursor))
}

// page is the body of a page of records.
type page struct {
	collections *Collections
	lines       bool // JSON lines instead of an object
	limit       int
	n           int // records
	out         []byte
}

func (p *page) begin() {
	if !p.lines {
		p.out = append(p.out, `{"records":[`...)
	}
}

// add adds a record, and reports whether the page takes another.
func (p *page) add(ev *store.Event) bool {
	if p.n > 0 && !p.lines {
		p.out = append(p.out, ',')
	}
	p.n++
	// DIDs, collections, record keys and revs have no characters that JSON escapes.
	p.out = append(append(p.out, `{"did":"`...), ev.DID...)
	p.out = append(append(p.out, `","collection":"`...), ev.Collection...)
	p.out = append(append(p.out, `","rkey":"`...), ev.Rkey...)
	p.out = ev.CID.AppendText(append(p.out, `","cid":"`...))
	p.out = append(append(append(p.out, `","rev":"`...), ev.Rev...), '"')
	out, ok := wire.AppendBody(p.out, "value", ev.Record)
	if !ok {
		p.collections.refused.Inc()
	}
	if p.out = append(out, '}'); p.lines {
		p.out = append(p.out, '\n')
	}
	return p.n < p.limit && len(p.out) < pageBytesMax
}

// end returns the page. Of JSON lines the headers have the cursor.
func (p *page) end(q wire.Query, collection, cursor string) []byte {
	if p.lines {
		if q.Header != nil {
			q.Header.Set("Content-Type", typeLines)
			q.Header.Add("Vary", "Accept")
		}
		q.LinkPage("/collections/"+collection+"/records", cursor)
		return p.out
	}
	p.out = append(p.out, ']')
	if cursor != "" {
		p.out = wire.AppendString(append(p.out, `,"cursor":`...), cursor)
	}
	return append(p.out, '}')
}
