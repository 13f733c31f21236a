//go:build realnet

package main_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cistern/store"
	"cistern/store/storetest"

	diff "github.com/google/go-cmp/cmp"
)

// duckRecord is a record of a store that is made for queries.
type duckRecord struct {
	did, collection, subject string
	created                  time.Time // zero: not stated
	odd                      bool      // it has no JSON form
}

// anyReason stands for all reasons why a record has no JSON form.
const anyReason = "any"

// duckStore makes a store of posts, likes and follows, and returns what it has.
func duckStore(t *testing.T, dir string, rng *rand.Rand) (all []duckRecord) {
	t.Helper()
	s, err := store.Open(store.Options{Dir: dir})
	must(t, err)
	text := func(s string) []byte {
		head := []byte{0x60 | byte(len(s))}
		if len(s) > 23 {
			head = []byte{0x78, byte(len(s))}
		}
		return append(head, s...)
	}
	for n := 1; n <= 30; n++ {
		m := storetest.Records{}
		for i := range rng.IntN(60) {
			r := duckRecord{did: storetest.DID(n),
				collection: []string{"app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.graph.follow"}[rng.IntN(3)]}
			fields := [][]byte{text("$type"), text(r.collection)}
			switch rng.IntN(10) {
			case 0:
				r.odd = true
				fields = append(fields, text("weight"), []byte("\xfb\x3f\xf8\x00\x00\x00\x00\x00\x00"))
			case 1:
			default:
				r.created = time.Date(2026, 11, 30, rng.IntN(24), rng.IntN(60), rng.IntN(60), 0, time.UTC)
				zone := time.FixedZone("", (rng.IntN(25)-12)*3600)
				fields = append(fields, text("createdAt"), text(r.created.In(zone).Format(time.RFC3339)))
			}
			if r.collection == "app.bsky.graph.follow" {
				r.subject = storetest.DID(1 + rng.IntN(8))
				fields = append(fields, text("subject"), text(r.subject))
			}
			m[r.collection+"/"+storetest.Rev(1<<40+i)] = slices.Concat(append([][]byte{{0xa0 | byte(len(fields)/2)}}, fields...)...)
			all = append(all, r)
		}
		var im store.Import
		wait, err := s.UpdateRepo(storetest.DID(n), func(b *store.Batch, r *store.Repo) error {
			b.Track(r, store.ByOperator, store.PriorityOperator)
			im = m.Import(*r, storetest.Rev(1<<40+n))
			b.PutRepo(r)
			return nil
		})
		must(t, err)
		must(t, wait())
		im.Done = func(_ store.Repo, err error) { must(t, err) }
		must(t, s.Import(t.Context(), im))
	}
	must(t, s.FlushImports())
	storetest.Check(t, s)
	must(t, s.Close())
	return all
}

// counted is a row of a result that counts.
type counted struct {
	key      string
	n, other int
}

// ranked returns counts by descending number, then by key.
func ranked(counts map[string]int) (rows []counted) {
	for key, n := range counts {
		rows = append(rows, counted{key: key, n: n})
	}
	slices.SortFunc(rows, func(a, b counted) int { return cmp.Or(b.n-a.n, cmp.Compare(a.key, b.key)) })
	return rows
}

// duckAnswers computes what the queries of docs/analysing.md answer, in their order.
func duckAnswers(all []duckRecord) [][]counted {
	collections, hours, odd := map[string]int{}, map[string]int{}, map[string]int{}
	accounts, followers := map[[2]string]bool{}, map[[2]string]bool{}
	for _, r := range all {
		collections[r.collection]++
		accounts[[2]string{r.collection, r.did}] = true
		if r.odd {
			odd[anyReason]++
			continue
		}
		if r.subject != "" {
			followers[[2]string{r.subject, r.did}] = true
		}
		if r.collection == "app.bsky.feed.post" && !r.created.IsZero() {
			hours[r.created.Format("2006-01-02 15:00:00")]++
		}
	}
	top := ranked(collections)
	for i := range top {
		for a := range accounts {
			if a[0] == top[i].key {
				top[i].other++
			}
		}
	}
	counts := map[string]int{}
	for f := range followers {
		counts[f[0]]++
	}
	perHour := ranked(hours)
	slices.SortFunc(perHour, func(a, b counted) int { return cmp.Compare(a.key, b.key) })
	return [][]counted{nil, top, ranked(counts), perHour, ranked(odd)}
}

// TestRealnetDuckDB runs every query of docs/analysing.md on an export, as it is printed, and compares
// the answers with those that Go computes of the records.
func TestRealnetDuckDB(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	x := newRealIndex(t, &realHosts{state: t.TempDir()})
	want := duckAnswers(duckStore(t, x.dir, rand.New(rand.NewPCG(seed, 1))))
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "analysing.md"))
	must(t, err)
	var queries []string
	for _, block := range strings.Split(string(text), "```sql\n")[1:] {
		query, _, _ := strings.Cut(block, "```")
		queries = append(queries, query)
	}
	if len(queries) != len(want) {
		t.Fatalf("the page has %d queries, this test knows %d", len(queries), len(want))
	}
	for _, format := range []string{"parquet", "ndjson"} {
		to := filepath.Join(t.TempDir(), "export")
		must(t, x.command("export", to, "--data", x.dir, "--format", format).Run())
		change := strings.NewReplacer("./export", to)
		if format == "ndjson" { // as the page says
			change = strings.NewReplacer("'./export/*.parquet'", "read_json('"+to+"/*.ndjson.zst')",
				"record->>'subject'", "record.subject")
		}
		args := []string{"duckdb.mjs"}
		for _, q := range queries {
			args = append(args, change.Replace(q))
		}
		var results [][]map[string]any
		must(t, json.Unmarshal(x.hosts.node(t, args...), &results))
		for i, rows := range results {
			var got []counted
			for _, row := range rows {
				got = append(got, countedOf(row))
			}
			if i == 4 { // a reason has the place in the record
				sum := 0
				for _, c := range got {
					sum += c.n
				}
				got = []counted{{key: anyReason, n: sum}}
			}
			if d := diff.Diff(want[i], got, diff.AllowUnexported(counted{})); d != "" && i > 0 {
				t.Errorf("%s: %s\n%s", format, queries[i], d)
			}
		}
	}
}

// countedOf reads a row, whatever its columns are called.
func countedOf(row map[string]any) (c counted) {
	number := func(v any) (n int) { // numbers of 64 bits are texts
		_, _ = fmt.Sscan(fmt.Sprint(v), &n)
		return n
	}
	for name, v := range row {
		switch name {
		case "accounts":
			c.other = number(v)
		case "records", "followers", "posts":
			c.n = number(v)
		default:
			c.key = strings.TrimSuffix(fmt.Sprint(v), "+00")
		}
	}
	return c
}
