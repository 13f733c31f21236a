package archive_test

import (
	"fmt"
	"testing"
	"time"

	"cistern/archive"
	"cistern/ingest/repo"
	"cistern/objects/objectstest"
	"cistern/store"
	"cistern/store/storetest"
)

// BenchmarkReplay reads 100,000 events of commits of one record each, from a store in memory
// and from segments in a directory. It reports the bytes on disk
// for an event: of segments, and of events, postings and blocks in the store.
func BenchmarkReplay(b *testing.B) {
	c := new(clock)
	s := storetest.Open(b, store.Options{Archive: true, Retention: time.Minute, Now: c.now})
	const events, repos = 100_000, 100
	for n := range repos {
		wait, err := s.UpdateRepo(storetest.DID(n+1), func(b *store.Batch, r *store.Repo) error {
			b.Track(r, store.ByOperator, store.PriorityOperator)
			b.PutRepo(r)
			return nil
		})
		if err == nil {
			err = wait()
		}
		if err != nil {
			b.Fatal(err)
		}
		r, err := s.Repo(storetest.DID(n + 1))
		if err != nil {
			b.Fatal(err)
		}
		im := storetest.Records{"app.bsky.actor.profile/self": storetest.Text("me")}.Import(r, storetest.Rev(n))
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
	for n := range events {
		text := fmt.Sprintf("%x %x", repo.HashCID(fmt.Append(nil, n)), repo.HashCID(fmt.Append(nil, -n)))
		op := store.Op{Path: fmt.Appendf(nil, "app.bsky.feed.post/%s", storetest.Rev(1<<20+n)),
			Record: storetest.Text("a post like others, with words that come again and again: " + text)}
		op.CID = repo.HashCID(op.Record)
		wait, err := s.UpdateRepo(storetest.DID(1+n%repos), func(b *store.Batch, r *store.Repo) error {
			r.Rev = storetest.Rev(1<<20 + n)
			r.Commit = storetest.Commit(r.DID, r.Rev, r.Data)
			err := b.Apply(r, true, r.Rev, []store.Op{op})
			b.PutRepo(r)
			return err
		})
		if err == nil && n%1000 == 999 {
			err = wait()
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Compact(b.Context(), func(string, int, int) {}); err != nil {
		b.Fatal(err)
	}
	sizes, err := s.Sizes()
	if err != nil {
		b.Fatal(err)
	}
	size := sizes["events"] + sizes["postings"] + sizes["blocks"]
	to, _ := objectstest.Directory(b)
	a, err := archive.New(archive.Options{Store: s, Destination: to})
	if err != nil {
		b.Fatal(err)
	}
	for _, row := range []struct {
		name string
		r    reader
	}{{"store", s}, {"segments", a}} {
		if row.name == "segments" {
			if err := a.Offload(b.Context(), none); err != nil {
				b.Fatal(err)
			}
			size = 0
			for _, seg := range s.Segments() {
				size += seg.Bytes
			}
			for range 3 {
				c.us.Add((2 * time.Minute).Microseconds())
				if err := s.Prune(b.Context(), none); err != nil {
					b.Fatal(err)
				}
			}
		}
		b.Run(row.name, func(b *testing.B) {
			n := 0
			for b.Loop() {
				for at := uint64(1); at <= s.Head(); {
					if at, err = row.r.ReadLog(b.Context(), at, 2000, func(*store.Event) error { n++; return nil }); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/event")
			b.ReportMetric(float64(size)/events, "B/event")
		})
	}
}
