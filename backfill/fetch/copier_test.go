package fetch_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"cistern/backfill/fetch"
	"cistern/filter"
	"cistern/ingest/identity"
	"cistern/ingest/repo"
	"cistern/ingest/simnet"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

// open is a host that may always be asked.
type open struct {
	client          http.Client
	requests, bytes atomic.Int64
}

func (o *open) Do(req *http.Request) (*http.Response, error) {
	o.requests.Add(1)
	return o.client.Do(req)
}

func (o *open) Received(bytes int64) { o.bytes.Add(bytes) }

func (o *open) Spares() bool { return true }

// world is a simulated network and a copier.
type world struct {
	t      *testing.T
	net    *simnet.Network
	dir    *identity.Directory
	host   open
	copier *fetch.Copier
}

func newWorld(t *testing.T, net simnet.Options, o fetch.Options) *world {
	t.Helper()
	w := &world{t: t}
	net.Seed = max(net.Seed, 1)
	var err error
	if w.net, err = simnet.New(net); err != nil {
		t.Fatal(err)
	}
	if err := w.net.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.net.Close() })
	if w.dir, err = identity.New(identity.Options{PLC: []string{w.net.PLC()}, AllowPrivate: true}); err != nil {
		t.Fatal(err)
	}
	o.Keys, o.Crowded = w.dir, func() bool { return false }
	o.SpoolDir = t.TempDir()
	if w.copier, err = fetch.New(o); err != nil {
		t.Fatal(err)
	}
	return w
}

// request asks for what a filter wants of a repository.
func (w *world) request(did string, config filter.Config) *fetch.Request {
	w.t.Helper()
	ident, err := w.dir.Resolve(w.t.Context(), did)
	if err != nil {
		w.t.Fatal(err)
	}
	f, err := filter.Compile(config)
	if err != nil {
		w.t.Fatal(err)
	}
	return &fetch.Request{Target: fetch.Target{DID: did, Ident: ident, HostID: 1, Host: &w.host}, Fresh: true, Filter: f}
}

// returned checks that no copy holds anything.
func (w *world) returned() {
	w.t.Helper()
	if memory, spools, indexes := w.copier.Taken(); memory != 0 || spools != 0 || indexes != 0 {
		w.t.Errorf("copies hold %d bytes of memory, %d of spools, %d of indexes", memory, spools, indexes)
	}
}

// TestCopy: a copy has the records of the repository, whether it is fetched whole or by parts, in
// memory or spooled, and holds memory until it is closed only.
func TestCopy(t *testing.T) {
	for name, c := range map[string]struct {
		options fetch.Options
		config  filter.Config
	}{
		"whole":   {fetch.Options{}, filter.Config{}},
		"spooled": {fetch.Options{RepoMemoryBytes: 256 << 10}, filter.Config{}},
		"parts":   {fetch.Options{Strategy: fetch.StrategySparse}, filter.Config{Collections: []string{"app.bsky.feed.post"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, simnet.Options{Hosts: 1, Repos: 3, RecordsMedian: 900, RecordsMax: 950}, c.options)
			for _, a := range w.net.Accounts() {
				req := w.request(a.DID(), c.config)
				got, err := w.copier.Copy(t.Context(), req)
				if err != nil {
					t.Fatal(err)
				}
				truth := a.Truth()
				if got.Commit.Rev != truth.Rev || repo.HashCID(got.Block) != truth.Commit {
					t.Errorf("commit of rev %s, want %s", got.Commit.Rev, truth.Rev)
				}
				records := 0
				if err := got.Walk(func(l repo.Leaf) error {
					collection, _, valid := repo.SplitPath(l.Key)
					if !valid || !req.Filter.Wants(collection) {
						return nil
					}
					records++
					if want := a.Record(string(l.Key)); !bytes.Equal(l.Record, want) {
						t.Errorf("%s: record differs", l.Key)
					}
					return nil
				}); err != nil {
					t.Error(err)
				}
				want := 0
				for _, path := range a.Paths() {
					if collection, _, valid := repo.SplitPath([]byte(path)); valid && req.Filter.Wants(collection) {
						want++
					}
				}
				if records != want || want == 0 {
					t.Errorf("%d records, want %d", records, want)
				}
				if err := got.Close(); err != nil {
					t.Error(err)
				}
			}
			w.returned()
			if w.host.bytes.Load() == 0 || w.host.requests.Load() < 3 {
				t.Errorf("the host was charged %d requests and %d bytes", w.host.requests.Load(), w.host.bytes.Load())
			}
		})
	}
}

// TestCopyOfOlderRev: a copy that is older than what is held is invalid, and holds nothing.
func TestCopyOfOlderRev(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simnet.Options{Hosts: 1, Repos: 1}, fetch.Options{})
	req := w.request(w.net.DIDs()[0], filter.Config{})
	req.Rev = "7zzzzzzzzzzzz"
	if _, err := w.copier.Copy(t.Context(), req); !errors.Is(err, repo.ErrInvalid) {
		t.Errorf("copied: %v", err)
	}
	w.returned()
}

// TestIndexes: the indexes of all CARs together have a limit. A copy that does not fit fails.
func TestIndexes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, simnet.Options{Hosts: 1, Repos: 2, RecordsMedian: 5}, fetch.Options{})
	large, small := w.net.DIDs()[0], w.net.DIDs()[1]
	writes := make([]simnet.Write, 15_000)
	for i := range writes {
		writes[i] = simnet.Write{Path: fmt.Sprintf("app.test.a/%06d", i), Record: []byte{0xa1, 0x61, 'n', 0x1a, 1, 0, byte(i >> 8), byte(i)}}
	}
	if _, err := w.net.Account(large).Commit(writes...); err != nil {
		t.Fatal(err)
	}
	copied := func(did string) error {
		c, err := w.copier.Copy(t.Context(), w.request(did, filter.Config{}))
		if err != nil {
			return err
		}
		return c.Close()
	}
	all := fetch.IndexesLeft(w.copier)
	fetch.TakeIndexes(w.copier, all-100_000)
	if err := copied(large); !errors.Is(err, fetch.ErrIndex) || errors.Is(err, repo.ErrInvalid) {
		t.Errorf("the large one: %v", err)
	}
	if err := copied(small); err != nil {
		t.Errorf("the small one: %v", err)
	}
	if left := fetch.IndexesLeft(w.copier); left != 100_000 {
		t.Errorf("%d bytes left of 100000", left)
	}
	fetch.TakeIndexes(w.copier, 100_000-all)
	if err := copied(large); err != nil {
		t.Errorf("the large one: %v", err)
	}
	w.returned()
}

// TestZstdWindows: however many hosts send zstd bodies with large windows at a time, few of them
// are open: other requests do not offer zstd.
func TestZstdWindows(t *testing.T) {
	t.Parallel()
	const hosts = 24
	noise := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise)
	var text bytes.Buffer
	z, err := zstd.NewWriter(&text, zstd.WithWindowSize(8<<20), zstd.WithSingleSegment(false))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = z.Write(noise)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	var zipped atomic.Int64
	opened, end := make(chan struct{}, hosts), make(chan struct{})
	serve := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/vnd.ipld.car")
		if r.Header.Get("Accept-Encoding") == "zstd, gzip" {
			zipped.Add(1)
			rw.Header().Set("Content-Encoding", "zstd")
			_, _ = rw.Write(text.Bytes()[:1000]) // the window is named, and no block is whole
		}
		_ = http.NewResponseController(rw).Flush()
		opened <- struct{}{}
		<-end
	})
	w := newWorld(t, simnet.Options{Hosts: 1, Repos: hosts, RecordsMedian: 1}, fetch.Options{Concurrency: 2 * hosts})
	var g errgroup.Group
	for _, did := range w.net.DIDs() {
		host := httptest.NewServer(serve)
		defer host.Close()
		req := w.request(did, filter.Config{})
		req.Ident.PDS = host.URL
		g.Go(func() error {
			if _, err := w.copier.Copy(t.Context(), req); err == nil {
				return fmt.Errorf("%s: copied", did)
			}
			return nil
		})
	}
	for range hosts {
		<-opened
	}
	all, free := fetch.ZstdPermits(w.copier)
	if n := zipped.Load(); n != all || all > 4 || free != 0 {
		t.Errorf("%d zstd bodies are open, of %d, %d more may be", n, all, free)
	}
	close(end)
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if all, free := fetch.ZstdPermits(w.copier); free != all {
		t.Errorf("%d of %d permits are free after the end", free, all)
	}
	w.returned()
}
