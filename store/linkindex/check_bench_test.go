package linkindex_test

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"cistern/store"
	"cistern/store/linkindex"
	"cistern/store/storetest"

	"github.com/fxamacker/cbor/v2"
)

// BenchmarkCheck checks an index on disk of a store of 100,000 records, which have no links, one or
// four each. It reports the time of the processors for each record of the store in the step that reads
// these, and for each link in the others, and for the whole that which the costs say.
func BenchmarkCheck(b *testing.B) {
	for _, links := range []int{0, 1, 4} {
		b.Run(fmt.Sprintf("links=%d", links), func(b *testing.B) {
			dir := b.TempDir()
			s, err := store.Open(store.Options{Dir: filepath.Join(dir, "db")})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			records := importLinked(b, s, links)
			x, err := linkindex.Open(linkindex.Options{Store: s, Dir: filepath.Join(dir, "links")})
			if err != nil {
				b.Fatal(err)
			}
			defer x.Close()
			if err := x.CatchUp(b.Context(), func() bool { return false }); err != nil {
				b.Fatal(err)
			}
			held := x.State().Links
			if held > int64(records*links) || held < int64(records*links)*99/100 { // a record has a link to a target once
				b.Fatalf("%d links of %d records", held, records)
			}
			b.ResetTimer()
			var first, rest, told float64
			for range b.N {
				one, others, err := x.CheckSteps(b.Context(), func(d string) { b.Error(d) }, func() float64 { return cpu().Seconds() })
				if err != nil {
					b.Fatal(err)
				}
				first, rest = first+one, rest+others
				told += float64(x.CheckWork()) / 1e9
			}
			b.ReportMetric(first*1e9/float64(b.N)/float64(records), "ns/record")
			b.ReportMetric(rest*1e9/float64(b.N)/max(1, float64(held)), "ns/link")
			b.ReportMetric((first+rest)/told, "time/told")
		})
	}
}

// importLinked imports 200 repositories of 500 records with so many links each, to targets as unequal
// as those of the network.
func importLinked(b *testing.B, s *store.Store, links int) (records int) {
	enc, err := cbor.CanonicalEncOptions().EncMode()
	if err != nil {
		b.Fatal(err)
	}
	w := newWorld()
	w.rng = rand.New(rand.NewPCG(1, 2))
	for n := range 200 {
		m := storetest.Records{}
		for range 500 {
			records++
			fields := map[string]any{"$type": "app.bsky.feed.post", "createdAt": "2026-05-01T10:00:00.000Z",
				"text": fmt.Sprint("a text of the length that one has on the network, more or less ", w.rng.Uint64())}
			var list []string
			for range links {
				list = append(list, w.post())
			}
			fields["list"] = list
			record, err := enc.Marshal(fields)
			if err != nil {
				b.Fatal(err)
			}
			m["app.bsky.feed.post/"+storetest.Rev(records)] = record
		}
		did := storetest.DID(1 + n)
		func() {
			defer s.Lock(did)()
			r, err := s.RepoOrNew(did)
			if err != nil {
				b.Fatal(err)
			}
			batch := s.NewBatch()
			batch.Track(&r, store.ByOperator, store.PriorityOperator)
			batch.PutRepo(&r)
			if err := batch.CommitSync(); err != nil {
				b.Fatal(err)
			}
		}()
		r, err := s.Repo(did)
		if err != nil {
			b.Fatal(err)
		}
		im := m.Import(r, storetest.Rev(1))
		im.Done = func(_ store.Repo, err error) {
			if err != nil {
				b.Error(err)
			}
		}
		if err := s.Import(b.Context(), im); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.FlushImports(); err != nil {
		b.Fatal(err)
	}
	return records
}
