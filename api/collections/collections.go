package collections

import (
	"encoding/json"
	"time"

	"cistern/api/wire"
	"cistern/store"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// pageBytesMax ends a page of records early: limit 1,000 × 14 MiB would be 14 GiB.
	pageBytesMax = 8 << 20
	// rowsMax bounds the rows that a page of records examines, also of accounts that are hidden: some
	// 20 ms of work.
	rowsMax = 10_000
	// didsMax bounds the accounts of a list of records.
	didsMax = 100
	// daysUsual is the number of days whose arrivals are answered without a parameter.
	daysUsual = 30
)

// Options of New.
type Options struct {
	// Store is the store that is served. Required.
	Store *store.Store
	// Refused counts records without a JSON form. Required.
	Refused prometheus.Counter
	// TimeOrderRepos is how many repositories a list by time merges at most. Default that of the
	// store.
	TimeOrderRepos int
}

// Collections answers the queries.
type Collections struct {
	store    *store.Store
	refused  prometheus.Counter
	reposMax int // of a list by time
}

// New returns the queries of a store.
func New(o Options) *Collections { return &Collections{o.Store, o.Refused, o.TimeOrderRepos} }

type totalItem struct {
	Collection string `json:"collection"`
	counted
}

type counted struct {
	Repositories int64 `json:"repositories"`
	Records      int64 `json:"records"`
}

type totalPage struct {
	Cursor      string      `json:"cursor,omitempty"`
	Collections []totalItem `json:"collections"`
}

// List answers GET /collections: the collections of which accounts show records, in order of name.
func (c *Collections) List(q wire.Query) ([]byte, error) {
	limit, err := q.Limit(100, 1000)
	if err != nil {
		return nil, err
	}
	all, err := c.store.CollectionTotals(q.Text("prefix"), q.Text("cursor"), limit)
	if err != nil {
		return nil, err
	}
	page := totalPage{Collections: []totalItem{}}
	for _, t := range all {
		page.Collections = append(page.Collections, totalItem{t.Collection, counted{t.Repos, t.Records}})
		page.Cursor = t.Collection
	}
	return json.Marshal(page)
}

type dayItem struct {
	Day     string `json:"day"` // 2006-01-02
	Created uint64 `json:"created"`
	Updated uint64 `json:"updated"`
	Deleted uint64 `json:"deleted"`
}

// Show answers GET /collections/{collection}: its total, and what arrived on each of the last days.
// A collection of which nothing is shown has zeros.
func (c *Collections) Show(q wire.Query) ([]byte, error) {
	collection, err := q.Collection()
	if err != nil {
		return nil, err
	}
	total, days, err := c.arrivals(q, collection)
	if err != nil {
		return nil, err
	}
	return json.Marshal(struct {
		totalItem
		Days []dayItem `json:"days"`
	}{totalItem{collection, total}, days})
}

// Counts answers GET /counts: the same over all collections.
func (c *Collections) Counts(q wire.Query) ([]byte, error) {
	total, days, err := c.arrivals(q, "")
	if err != nil {
		return nil, err
	}
	return json.Marshal(struct {
		Collections int64 `json:"collections"`
		counted
		Days []dayItem `json:"days"`
	}{c.store.Counts()["collection_names"], total, days})
}

func (c *Collections) arrivals(q wire.Query, collection string) (counted, []dayItem, error) {
	n, given, err := q.Uint64("days")
	if err != nil {
		return counted{}, nil, err
	}
	if !given {
		n = daysUsual
	}
	if n > store.DaysKept {
		return counted{}, nil, wire.Invalid("days %d: want 0 to %d", n, store.DaysKept)
	}
	t, days, err := c.store.CollectionTotal(collection, int(n))
	items := []dayItem{}
	for _, d := range days {
		items = append(items, dayItem{d.Begin.Format(time.DateOnly), d.Created, d.Updated, d.Deleted})
	}
	return counted{t.Repos, t.Records}, items, err
}
