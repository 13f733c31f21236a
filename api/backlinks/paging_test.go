package backlinks_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"slices"
	"testing"
	"time"

	"cistern/links"
	"cistern/store"
	"cistern/store/storetest"
)

// Accounts of the property test: the first of them change while pages are read, the others stay.
const accounts, changing = 8, 4

func subjectOf(n int) string {
	if n%2 == 0 {
		return storetest.DID(n + 100)
	}
	return fmt.Sprint("https://example.com/", n)
}

const subjects = 4

// listing is a method that lists, with the field that has its items.
type listing struct {
	method, list string
	q            url.Values
}

func listings(rng *rand.Rand) (all []listing) {
	subject := subjectOf(rng.IntN(subjects))
	for _, c := range []string{"app.test.c0", "app.test.c1"} {
		newer := func(more ...string) url.Values {
			q := url.Values{"subject": {subject}, "source": {c + ":subject"}}
			for i := 0; i < len(more); i += 2 {
				q.Add(more[i], more[i+1])
			}
			return q
		}
		stable := []string{"pathToOther", "list[]"}
		for n := changing + 1; n <= accounts; n++ {
			stable = append(stable, "did", storetest.DID(n))
		}
		older := url.Values{"target": {subject}, "collection": {c}, "path": {".subject"}}
		all = append(all,
			listing{"getBacklinks", "records", newer()},
			listing{"getBacklinks", "records", newer("reverse", "true")},
			listing{"getBacklinks", "records", newer("did", storetest.DID(1), "did", storetest.DID(accounts))},
			listing{"getBacklinkDids", "linking_dids", newer()},
			listing{"getManyToMany", "items", newer("pathToOther", "list[]")},
			listing{"getManyToMany", "items", newer("pathToOther", "list[]", "otherSubject", subjectOf(1))},
			listing{"getManyToManyCounts", "counts_by_other_subject", newer(stable...)},
			listing{"/links", "linking_records", older},
			listing{"/links/distinct-dids", "linking_dids", older})
	}
	return all
}

// read reads all pages of a listing of some items each, and calls between before each page but the
// first.
func (w *world) read(t *testing.T, l listing, limit func() int, between func()) (items []string) {
	t.Helper()
	q := maps.Clone(l.q)
	for {
		n := limit()
		q.Set("limit", fmt.Sprint(n))
		var page map[string]json.RawMessage
		w.get(t, l.method, q, &page)
		var list []json.RawMessage
		if err := json.Unmarshal(page[l.list], &list); err != nil || len(list) > n {
			t.Fatalf("%s %v: %d items, %v", l.method, q, len(list), err)
		}
		for _, item := range list {
			items = append(items, string(item))
		}
		if page["cursor"] == nil {
			return w.summed(t, l, items)
		}
		var cursor string
		if err := json.Unmarshal(page["cursor"], &cursor); err != nil {
			t.Fatal(err)
		}
		q.Set("cursor", cursor)
		between()
	}
}

// summed returns counts by subject without their windows, of which accounts cannot be summed.
func (w *world) summed(t *testing.T, l listing, items []string) []string {
	if l.method != "getManyToManyCounts" || !w.windows {
		return items
	}
	totals := map[string]int{}
	for _, item := range items {
		var v struct {
			Subject string
			Total   int
		}
		if err := json.Unmarshal([]byte(item), &v); err != nil {
			t.Fatal(err)
		}
		totals[v.Subject] += v.Total
	}
	items = nil
	for subject, n := range totals {
		items = append(items, fmt.Sprintf(`{"subject":%q,"total":%d}`, subject, n))
	}
	slices.Sort(items)
	return items
}

// stays reports whether an item is of an account that does not change.
func stays(item string) bool {
	var v struct {
		DID, Subject string
		LinkRecord   struct{ DID string }
	}
	if json.Unmarshal([]byte(item), &v) != nil {
		_ = json.Unmarshal([]byte(item), &v.DID)
	}
	if v.Subject != "" {
		return true // a count over accounts that do not change
	}
	for n := changing + 1; n <= accounts; n++ {
		if did := storetest.DID(n); v.DID == did || v.LinkRecord.DID == did {
			return true
		}
	}
	return false
}

// TestPaging: at rest, pages have in every order what one large page has. While accounts are written,
// hidden, wiped and imported, what does not change is listed exactly once.
func TestPaging(t *testing.T) {
	t.Parallel()
	for i := range storetest.Seeds(3) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			seed := uint64(time.Now().UnixNano()) + i
			t.Logf("seed %d", seed)
			paging(t, rand.New(rand.NewPCG(seed, 0)), i%2 == 1)
		})
	}
}

func paging(t *testing.T, rng *rand.Rand, bounded bool) {
	w := newWorld(t)
	a := &storetest.Author{T: t, Store: w.store, Rand: rng, Repos: accounts, Record: func() []byte {
		m := map[string]any{"text": fmt.Sprint(rng.IntN(100)), "subject": subjectOf(rng.IntN(subjects))}
		list := []any{}
		for range rng.IntN(5) {
			list = append(list, subjectOf(rng.IntN(2*subjects)))
		}
		m["list"] = list
		return encode(t, m)
	}}
	for range 80 {
		a.Step()
	}
	w.catchUp(t)
	w.recompute(t)
	one, some := func() int { return 1000 }, func() int { return 1 + rng.IntN(6) }
	whole := func(l listing) []string { // a listing as one page
		w.answers.SetBounds(1000, 1, 1<<20, 1<<20)
		defer func() {
			if bounded {
				w.answers.SetBounds(1+rng.IntN(5), 1+rng.IntN(3), 1+rng.IntN(1000), 1+rng.IntN(2000))
			}
		}()
		return w.read(t, l, one, func() { t.Fatal("a second page of 1,000") })
	}
	w.windows = bounded
	for _, l := range listings(rng) {
		want := whole(l)
		if got := w.read(t, l, some, func() {}); !slices.Equal(got, want) {
			t.Fatalf("%s %v: paged %q, as one page %q", l.method, l.q, got, want)
		}
	}
	a.Repos = changing
	for _, l := range listings(rng) {
		want := whole(l)
		got := w.read(t, l, some, func() {
			for range rng.IntN(4) {
				a.Step()
			}
			if rng.IntN(3) == 0 {
				w.catchUp(t)
			}
		})
		goes := func(item string) bool { return !stays(item) }
		want, got = slices.DeleteFunc(want, goes), slices.DeleteFunc(got, goes)
		if l.method == "getBacklinkDids" || l.method == "/links/distinct-dids" || !slices.Equal(got, want) {
			slices.Sort(want)
			slices.Sort(got)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%s %v, with writes: paged %q, as one page %q", l.method, l.q, got, want)
		}
	}
	w.catchUp(t)
	w.answers.SetBounds(1000, 1, 1<<20, 1<<20)
	w.recompute(t)
}

// recompute compares pairs of subjects, and their counts, with those that all records have.
func (w *world) recompute(t *testing.T) {
	t.Helper()
	for n := range subjects {
		subject := subjectOf(n)
		pairs, counts := map[string]bool{}, map[string]map[string]int{} // other → DID → records
		for n := 1; n <= accounts; n++ {
			did := storetest.DID(n)
			r, err := w.store.RepoOrNew(did)
			if err != nil {
				t.Fatal(err)
			}
			if r.Ordinal == 0 || r.Status.Hidden() {
				continue
			}
			for _, rec := range storetest.List(t, w.store, &r, "app.test.c0", "", 1<<20, false) {
				for other := range othersOf(t, rec, subject) {
					pairs[did+"/"+rec.Rkey+" "+other] = true
					if counts[other] == nil {
						counts[other] = map[string]int{}
					}
					counts[other][did]++
				}
			}
		}
		w.comparePairs(t, subject, pairs, counts)
	}
}

// othersOf returns the set of other subjects of a record that links to a subject.
func othersOf(t *testing.T, rec store.Record, subject string) map[string]bool {
	found, err := links.Extract(nil, rec.Record)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(found, links.Link{Path: ".subject", Target: subject}) {
		return nil
	}
	others := map[string]bool{}
	for _, l := range found {
		if l.Path == ".list[]" {
			others[l.Target] = true
		}
	}
	return others
}

func (w *world) comparePairs(t *testing.T, subject string, pairs map[string]bool, counts map[string]map[string]int) {
	t.Helper()
	q := url.Values{"subject": {subject}, "source": {"app.test.c0:subject"}, "pathToOther": {"list[]"}, "limit": {"1000"}}
	var many struct {
		Items []struct {
			LinkRecord   struct{ DID, Collection, RKey string }
			OtherSubject string
		}
	}
	w.get(t, "getManyToMany", q, &many)
	got := map[string]bool{}
	for _, i := range many.Items {
		got[i.LinkRecord.DID+"/"+i.LinkRecord.RKey+" "+i.OtherSubject] = true
	}
	if !maps.Equal(got, pairs) || len(got) != len(many.Items) {
		t.Errorf("getManyToMany of %s: %v (%d items), want %v", subject, got, len(many.Items), pairs)
	}
	var by struct {
		Counts []struct {
			Subject         string
			Total, Distinct int
		} `json:"counts_by_other_subject"`
	}
	w.get(t, "getManyToManyCounts", q, &by)
	for _, c := range by.Counts {
		total := 0
		for _, n := range counts[c.Subject] {
			total += n
		}
		if total != c.Total || len(counts[c.Subject]) != c.Distinct {
			t.Errorf("getManyToManyCounts of %s: %+v, want %v", subject, c, counts[c.Subject])
		}
	}
	if len(by.Counts) != len(counts) {
		t.Errorf("getManyToManyCounts of %s: %d subjects, want %d", subject, len(by.Counts), len(counts))
	}
}
