package linkindex_test

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"

	"cistern/store"
	"cistern/store/linkindex"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

var benchLinks = flag.Int("links", 1_000_000, "links of BenchmarkBuild")

// world makes the records of accounts in the order of imports: likes, posts, reposts and follows,
// whose targets are as unequal as those of the network.
type world struct {
	rng      *rand.Rand
	posts    *rand.Zipf
	accounts *rand.Zipf
	links    []linkindex.TestLink
}

func (w *world) post() string {
	n := w.posts.Uint64()
	return fmt.Sprintf("at://%s/app.bsky.feed.post/%s", storetest.DID(int(n%40_000_000)), storetest.Rev(int(n)))
}

// record returns the links of a record of a kind.
func (w *world) record(kind int) []linkindex.TestLink {
	add := func(collection, path, target string) {
		w.links = append(w.links, linkindex.TestLink{Source: linkindex.Source{Collection: collection, Path: path}, Target: target})
	}
	w.links = w.links[:0]
	switch kind {
	case 0:
		add(collections[kind], ".subject.uri", w.post())
	case 1:
		if w.rng.IntN(5) < 2 {
			add(collections[kind], ".reply.parent.uri", w.post())
			add(collections[kind], ".reply.root.uri", w.post())
		}
		if w.rng.IntN(8) == 0 {
			add(collections[kind], ".embed.external.uri", fmt.Sprintf("https://example.com/%d", w.posts.Uint64()))
		}
	case 2:
		add(collections[kind], ".subject.uri", w.post())
	case 3:
		add(collections[kind], ".subject", storetest.DID(int(w.accounts.Uint64())))
	}
	return w.links
}

var collections = []string{"app.bsky.feed.like", "app.bsky.feed.post", "app.bsky.feed.repost", "app.bsky.graph.follow"}

// BenchmarkBuild puts links in the order of imports and waits for the compactions.
func BenchmarkBuild(b *testing.B) {
	for _, c := range []struct {
		name      string
		runBytes  int
		smallRows int
		tune      func(*pebble.Options)
	}{
		{"memtable", 4 << 20, 1 << 30, nil},
		{"runs=16MiB", 16 << 20, 0, nil},
		{"runs=64MiB", 64 << 20, 0, nil},
		{"runs=256MiB", 256 << 20, 0, nil},
		{"runs=64MiB,L0=4", 64 << 20, 0, func(p *pebble.Options) { p.L0CompactionThreshold = 4; p.LBaseMaxBytes = 64 << 20 }},
		{"runs=64MiB,L0=16", 64 << 20, 0, func(p *pebble.Options) { p.L0CompactionThreshold = 16; p.LBaseMaxBytes = 1 << 30 }},
	} {
		b.Run(c.name, func(b *testing.B) {
			for range b.N {
				build(b, linkindex.Options{RunBytes: c.runBytes}, c.smallRows, c.tune)
			}
		})
	}
}

func build(b *testing.B, o linkindex.Options, smallRows int, tune func(*pebble.Options)) {
	o.Store, o.Dir, o.FS = storetest.Open(b, store.Options{}), b.TempDir(), vfs.Default
	x, err := linkindex.OpenTuned(o, smallRows, tune)
	if err != nil {
		b.Fatal(err)
	}
	start, begin := cpu(), time.Now()
	links, making := fill(b, x, newWorld(), func(string) {})
	put := time.Since(begin)
	settle(b, x)
	used := cpu() - start - making
	m := x.DB().Metrics()
	written := m.WAL.BytesWritten
	for _, l := range m.Levels {
		written += l.TableBytesFlushed + l.TableBytesCompacted + l.TableBytesIngested
	}
	size := m.DiskSpaceUsage() - m.WAL.Size
	b.ReportMetric(float64(used.Nanoseconds())/float64(links)/1000, "µs-cpu/link")
	b.ReportMetric(float64(put.Nanoseconds())/float64(links)/1000, "µs/link")
	b.ReportMetric(float64(size)/float64(links), "B/link")
	b.ReportMetric(float64(written)/float64(size), "write-amp")
	b.ReportMetric(float64(links), "links")
	if err := x.Close(); err != nil {
		b.Fatal(err)
	}
	if err := os.RemoveAll(o.Dir); err != nil {
		b.Fatal(err)
	}
}

func newWorld() *world {
	rng := rand.New(rand.NewPCG(1, 1))
	return &world{rng: rng, posts: rand.NewZipf(rng, 1.05, 10, uint64(*benchLinks)*3),
		accounts: rand.NewZipf(rng, 1.1, 10, 40_000_000)}
}

// fill puts records account by account until there are enough links. making is the processor time
// that it took to make them. It calls begin for each account.
func fill(b *testing.B, x *linkindex.Index, w *world, begin func(did string)) (links int, making time.Duration) {
	out := x.NewWriter()
	for account := 0; links < *benchLinks; account++ {
		t := cpu()
		records := int(min(math.Exp(w.rng.NormFloat64()*1.8+4.6), 200_000)) // median 100
		var made [][]linkindex.TestLink
		var kinds []int
		for kind, share := range []float64{.6, .2, .05, .15} {
			for range int(share * float64(records)) {
				made = append(made, append([]linkindex.TestLink(nil), w.record(kind)...))
				kinds = append(kinds, kind)
			}
		}
		did := storetest.DID(account + 1)
		begin(did)
		making += cpu() - t
		for i, l := range made {
			rkey := storetest.Rev(account%1000*1_000_000 + i)
			if err := out.Put(did, []byte(collections[kinds[i]]), []byte(rkey), l); err != nil {
				b.Fatal(err)
			}
			links += len(l)
		}
	}
	if err := out.Flush(); err != nil {
		b.Fatal(err)
	}
	return links, making
}

// BenchmarkRead reads the links to posts, popular ones as often as they are linked to.
func BenchmarkRead(b *testing.B) {
	s := storetest.Open(b, store.Options{})
	x, err := linkindex.Open(linkindex.Options{Store: s, Dir: b.TempDir(), FS: vfs.Default})
	if err != nil {
		b.Fatal(err)
	}
	w := newWorld()
	fill(b, x, w, func(did string) { // pages have accounts with a copy only
		var im store.Import
		wait, err := s.UpdateRepo(did, func(batch *store.Batch, r *store.Repo) error {
			batch.Track(r, store.ByOperator, store.PriorityOperator)
			batch.PutRepo(r)
			im = storetest.Records{}.Import(*r, storetest.Rev(1))
			return nil
		})
		im.Done = func(_ store.Repo, err error) {
			if err != nil {
				b.Error(err)
			}
		}
		if err := errors.Join(err, wait(), s.Import(b.Context(), im)); err != nil {
			b.Fatal(err)
		}
	})
	if err := s.FlushImports(); err != nil {
		b.Fatal(err)
	}
	settle(b, x)
	like := linkindex.Source{Collection: collections[0], Path: ".subject.uri"}
	rows := 0
	for _, c := range []struct {
		name string
		read func(target string) (int, error)
	}{
		{"Count", func(target string) (int, error) {
			n, _, err := x.Count(target, like)
			return int(min(n, 1)), err
		}},
		{"Records=100", func(target string) (int, error) {
			page, _, err := x.Records(target, like, linkindex.Query{Limit: 100})
			return len(page), err
		}},
		{"DIDs=100", func(target string) (int, error) {
			page, _, err := x.DIDs(target, like, 0, 100)
			return len(page), err
		}},
		{"Sources", func(target string) (int, error) {
			all, err := x.Sources(target)
			return len(all), err
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			targets := make([]string, b.N)
			for i := range targets {
				targets[i] = w.post()
			}
			rows = 0
			b.ResetTimer()
			for i := range b.N {
				n, err := c.read(targets[i])
				if err != nil {
					b.Fatal(err)
				}
				rows += n
			}
			b.ReportMetric(float64(rows)/float64(b.N), "rows/op")
		})
	}
	if err := x.Close(); err != nil {
		b.Fatal(err)
	}
}

// settle waits for compactions.
func settle(b *testing.B, x *linkindex.Index) {
	if err := x.DB().Flush(); err != nil {
		b.Fatal(err)
	}
	for quiet := 0; quiet < 20; quiet++ {
		if x.DB().Metrics().Compact.NumInProgress > 0 {
			quiet = 0
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// cpu returns the processor time that the process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
