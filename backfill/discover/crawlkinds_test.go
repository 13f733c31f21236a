package discover_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cistern/backfill/discover"
	"cistern/filter"
	"cistern/ingest/simnet"
	"cistern/store"
)

const (
	listRepos  = "com.atproto.sync.listRepos"
	listHosts  = "com.atproto.sync.listHosts"
	describe   = "com.atproto.repo.describeRepo"
	collection = "com.atproto.sync.listReposByCollection"
)

// mark returns the mark of a list. Its name is that of the source, then that of a host or
// collection.
func (w *world) mark(name string) store.CrawlMark {
	w.T.Helper()
	m, err := w.Store.CrawlMark(listNamed(name))
	if err != nil {
		w.T.Fatal(err)
	}
	return m
}

// listNamed returns the list of a name like KIND::URL or KIND::URL::PART.
func listNamed(name string) store.CrawlList {
	parts := append(strings.SplitN(name, "::", 3), "", "")
	return store.CrawlList{Kind: parts[0], URL: parts[1], Part: parts[2]}
}

// later returns when a host is asked about an account again; ok is false if it is not.
func (w *world) later(did string) (d store.DescribeRetry, ok bool) {
	w.T.Helper()
	all, err := w.Store.DescribeRetries()
	if err != nil {
		w.T.Fatal(err)
	}
	d, ok = all[did]
	return d, ok
}

// ended reports whether a list was read to its end.
func (w *world) ended(name string) bool {
	return w.mark(name).Ended != 0
}

// crawls returns the status of the only source.
func (w *world) crawls() discover.CrawlStatus {
	w.T.Helper()
	all := w.crawl.Crawls()
	if len(all) != 1 {
		w.T.Fatalf("sources %+v", all)
	}
	return all[0]
}

// TestCrawlHosts: the lists of hosts are read, so that accounts are found which the relay does not
// name. A host is asked once about an account that it lists as inactive. After a failure in the
// middle, the list of a host resumes where it was. No account is skipped.
func TestCrawlHosts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 5, Repos: 60, RecordsMedian: 2, QuietEvery: 4}})
	dids := w.Net.DIDs()
	out := []string{dids[3], dids[8]} // the first of them quiet
	w.Net.Account(out[0]).SetStatus(simnet.Deactivated)
	w.Net.Account(out[1]).SetStatus(simnet.Takendown)
	banned := dids[11]
	dead := w.Net.Host(2)
	if err := dead.Down(); err != nil {
		t.Fatal(err)
	}
	w.Filter(filter.Config{Mode: filter.ModeFull, Excludes: []string{banned}})
	w.Stop()
	source := discover.Source{Kind: discover.SourceHosts, URL: w.Net.Relay(), Implied: true}
	options := discover.Options{Crawl: []discover.Source{source}}
	w.start(options)
	alive := 0
	for _, did := range dids {
		if w.Net.Account(did).Host() != dead && did != banned && !slices.Contains(out, did) {
			alive++
		}
	}
	w.Until("all of the hosts that are up", func() bool { return w.Store.Counts()["synced"] == int64(alive) })
	w.Until("inactive accounts to be asked for", func() bool { return w.Store.Counts()["gone"] == int64(len(out)) })
	for _, did := range out {
		r, truth := w.Row(did), w.Net.Account(did).Truth()
		if r.Status.String() != string(truth.Status) || r.Tracked != store.ByNetwork || r.PDS != truth.Host {
			t.Errorf("inactive: %+v", r)
		}
		if n := len(w.Net.Account(did).Host().Log().Fetches[did]); n != 1 {
			t.Errorf("%s was asked for %d times", did, n)
		}
	}
	if _, err := w.Store.Repo(banned); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("an excluded repository: %v", err)
	}
	if n := w.Net.RelayHost().Log().Requests[listRepos]; n != 0 {
		t.Errorf("the relay was asked %d times for accounts", n)
	}
	w.Until("the failure to show", func() bool { return w.crawls().Failing == 1 })
	s := w.crawls()
	if s.Lists != 6 || s.Ended != 5 || s.Failure == "" || !s.Running || s.Persisted {
		t.Errorf("status %+v", s)
	}
	// Its return is noticed within an hour, the longest pause, after a restart too.
	w.Stop()
	if err := dead.Up(); err != nil {
		t.Fatal(err)
	}
	before := w.Net.Host(0).Log().Requests[listRepos]
	w.start(options)
	all := int64(len(dids) - len(out) - 1)
	w.Until("all", func() bool { return w.Store.Counts()["synced"] == all })
	if n := w.Net.Host(0).Log().Requests[listRepos]; n != before {
		t.Error("a list that had come to its end was read again")
	}
	w.Until("the pass to end", func() bool { return w.crawls().Ended == 6 && !w.crawls().PassEnded.IsZero() })
	for _, did := range dids {
		if did != banned && !slices.Contains(out, did) {
			w.Equal(did)
		}
	}
	// An account that returns, and a repository that changed without an event, are found a day
	// later.
	w.Net.Account(out[0]).SetStatus(simnet.Active)
	ahead := dids[0]
	if _, err := w.Net.Account(ahead).Mutate(3); err != nil {
		t.Fatal(err)
	}
	w.Clock.Advance(25 * time.Hour)
	w.Wake()
	w.Until("the next pass", func() bool {
		return w.Store.Counts()["synced"] == all+1 && w.Row(ahead).Rev == w.Net.Account(ahead).Truth().Rev
	})
	w.Equal(out[0])
	w.Equal(ahead)
	if n := w.Store.Counts()["behind"]; n != 0 {
		t.Errorf("%d are behind", n)
	}
}

// TestCrawlMigrated: an account that moved is listed as deactivated by its former host. That does
// not hide its current host, in whatever order the hosts are read.
func TestCrawlMigrated(t *testing.T) {
	t.Parallel()
	for former := range 2 {
		w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 2, Repos: 6, RecordsMedian: 2}})
		moved := w.Net.Account(w.Net.DIDs()[former])
		moved.Migrate(w.Net.Host(1 - former))
		w.Filter(filter.Config{Mode: filter.ModeFull})
		w.Stop()
		w.start(discover.Options{Crawl: []discover.Source{{Kind: discover.SourceHosts, URL: w.Net.Relay()}}, CrawlEvery: time.Hour})
		w.Until("all", func() bool {
			if w.Store.Counts()["synced"] == 6 {
				return true
			}
			if w.crawls().Ended == 3 { // the new host was read first
				w.Clock.Advance(time.Hour)
				w.Wake()
			}
			return false
		})
		w.Equal(moved.DID())
		w.Stop()
	}
}

// TestCrawlHostsClaims: a host's list has no effect on accounts of other hosts.
func TestCrawlHostsClaims(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 4, RecordsMedian: 3}})
	dids := w.Net.DIDs()
	w.Add(dids...)
	w.Settle(dids...)
	w.Filter(filter.Config{Mode: filter.ModeFull})
	asked := len(w.Net.Host(0).Log().Fetches[dids[0]]) + w.Net.Host(0).Log().Requests["com.atproto.sync.getLatestCommit"]
	liar := newList(t)
	liar.entries = []string{active(dids[0], w.Net.Account(dids[0]).NextTID()), inactive(dids[1], "takendown"), active("no DID", "")}
	relay := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(rw, `{"hosts":[{"hostname":%q,"status":"active"},{"hostname":"10.0.0.1:x"},{"hostname":"a/b"},{"hostname":"banned.test","status":"banned"}]}`,
			strings.TrimPrefix(liar.URL, "http://"))
	}))
	t.Cleanup(relay.Close)
	w.Stop()
	w.start(discover.Options{Crawl: []discover.Source{{Kind: discover.SourceHosts, URL: relay.URL}}})
	// The lists include that of the host that the relay does not name.
	w.Until("the pass to end", func() bool { return w.crawls().Ended == 3 })
	if s := w.crawls(); s.Lists != 3 || s.Queued != 0 || s.Found != 0 {
		t.Errorf("status %+v", s)
	}
	for _, did := range dids {
		w.Equal(did)
	}
	if n := len(w.Net.Host(0).Log().Fetches[dids[0]]) + w.Net.Host(0).Log().Requests["com.atproto.sync.getLatestCommit"]; n != asked {
		t.Error("the repository was asked for")
	}
}

// postsOf returns the accounts that hold a collection.
func (w *world) holders(nsid string) []string {
	var dids []string
	for _, a := range w.Net.Accounts() {
		if slices.ContainsFunc(a.Paths(), func(p string) bool { return path.Dir(p) == nsid }) {
			dids = append(dids, a.DID())
		}
	}
	return dids
}

// some is a collection that some accounts hold, not all.
func (w *world) some() (nsid string, dids []string) {
	w.T.Helper()
	for _, a := range w.Net.Accounts() {
		for _, p := range a.Paths() {
			if dids := w.holders(path.Dir(p)); len(dids) < len(w.Net.Accounts()) {
				return path.Dir(p), dids
			}
		}
	}
	w.T.Fatal("every account holds every collection")
	return "", nil
}

// TestCrawlSignals: with sources of kind repos and hosts, the host of an unknown account is asked
// for its collections first, and only an account with a collection that a signal names is followed.
// When a signal is added, the list is read again.
func TestCrawlSignals(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{discover.SourceRepos, discover.SourceHosts} {
		w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 3, Repos: 20, RecordsMedian: 2, Seed: 7}})
		nsid, want := w.some()
		w.Filter(filter.Config{Signals: []string{"com.example.nothing.*"}})
		w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.ServerError, Endpoint: describe, Count: 1})
		w.Stop()
		w.start(discover.Options{Crawl: []discover.Source{{Kind: kind, URL: w.Net.Relay()}}})
		lists := map[string]int{discover.SourceRepos: 1, discover.SourceHosts: 4}[kind]
		w.Until("the pass to end", func() bool { return w.crawls().Ended == lists })
		if n := w.Store.Counts()["repos"]; n != 0 {
			t.Errorf("%s: %d repositories hold nothing that a signal names", kind, n)
		}
		w.Filter(filter.Config{Signals: []string{"com.example.nothing.*", nsid}})
		w.Until("those of the new signal", func() bool { return w.Store.Counts()["repos"] >= int64(len(want)) })
		w.Until("the pass to end", func() bool { return w.crawls().Ended == lists })
		w.Settle(want...)
		for _, did := range want {
			if r := w.Row(did); r.Tracked != store.BySignal || r.State != store.StateSynced {
				t.Errorf("%s: %+v", kind, r)
			}
		}
		if n := w.Store.Counts()["repos"]; n != int64(len(want)) {
			t.Errorf("%s: %d repositories, want %d", kind, n, len(want))
		}
		w.Stop()
	}
}

// TestCrawlDescribeFails: a host that does not report the collections of an account is asked again,
// after a restart too, and delays no other account.
func TestCrawlDescribeFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 6, RecordsMedian: 3}})
	sick := w.Net.DIDs()[2]
	fault := w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.Garbage, Endpoint: describe, DID: sick})
	w.Filter(filter.Config{Signals: []string{"app.*"}})
	w.Stop()
	options := discover.Options{Crawl: []discover.Source{{Kind: discover.SourceRepos, URL: w.Net.Relay()}}}
	w.start(options)
	w.Until("the others", func() bool { return w.crawls().Ended == 1 && w.Store.Counts()["synced"] == 5 })
	if _, ok := w.later(sick); !ok {
		t.Fatal("it is not to be asked again")
	}
	w.Stop()
	before := fault.Fired()
	w.Clock.Advance(20 * time.Minute)
	w.start(options)
	w.Until("another try", func() bool {
		d, _ := w.later(sick)
		return fault.Fired() > before && d.Tries == 2
	})
	fault.Clear()
	w.Clock.Advance(time.Hour)
	w.Stop()
	w.start(options)
	w.Until("it", func() bool { return w.Store.Counts()["synced"] == 6 })
	if d, ok := w.later(sick); ok {
		t.Errorf("still to be asked: %+v", d)
	}
	w.Equal(sick)
}

// TestCrawlCollection: an account with a collection is followed at once, for each signal that names
// one collection.
func TestCrawlCollection(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 2, Repos: 20, RecordsMedian: 2, Seed: 7}})
	nsid, want := w.some()
	w.Filter(filter.Config{Signals: []string{"app.bsky.*"}}) // names no collection
	w.Stop()
	source := discover.Source{Kind: discover.SourceCollection, URL: w.Net.Relay()}
	w.start(discover.Options{Crawl: []discover.Source{source}})
	w.Filter(filter.Config{Signals: []string{"app.bsky.*", nsid}, Excludes: want[:1]})
	w.Until("the pass to end", func() bool { return w.ended(source.String() + "::" + nsid) })
	w.Settle(want[1:]...)
	if n := w.Store.Counts()["repos"]; n != int64(len(want)-1) {
		t.Errorf("%d repositories, want %d", n, len(want)-1)
	}
	if r := w.Row(want[1]); r.Tracked != store.BySignal {
		t.Errorf("followed because of %v", r.Tracked)
	}
	if l := w.Net.RelayHost().Log(); l.Requests[describe]+l.Requests[listRepos] != 0 || l.Requests[collection] == 0 {
		t.Errorf("requests %v", l.Requests)
	}
}

// TestCrawlWhy: without signals, all accounts of a list that the operator named are followed, and
// none of an implied list.
func TestCrawlWhy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 3, RecordsMedian: 2}})
	w.Stop()
	w.start(discover.Options{Crawl: []discover.Source{{Kind: discover.SourceHosts, URL: w.Net.Relay(), Implied: true}}})
	if err := w.crawl.AddCrawl(discover.Source{Kind: discover.SourceRepos, URL: w.Net.Host(0).URL()}); err != nil {
		t.Fatal(err)
	}
	w.Until("all", func() bool { return w.Store.Counts()["synced"] == 3 })
	if n := len(w.Net.RelayHost().Log().Requests); n != 0 {
		t.Errorf("%d requests of an implied source, while another was listed to its end", n)
	}
	if r := w.Row(w.Net.DIDs()[0]); r.Tracked != store.ByOperator {
		t.Errorf("followed because of %v", r.Tracked)
	}
}

// TestCrawlSourcesComeAndGo: a source that was added at run time exists after a restart, and a
// removed one does not; after its cursor was forgotten, a list is read from the beginning.
func TestCrawlSourcesComeAndGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 3, RecordsMedian: 2}})
	s := discover.Source{Kind: discover.SourceRepos, URL: w.Net.Relay()}
	for _, bad := range []discover.Source{{Kind: "list_repos", URL: s.URL}, {Kind: "repos", URL: "https://a/b"}, {Kind: "repos", URL: "HTTPS://a"}, {Kind: "repos", URL: "localhost:2583"}} {
		if err := w.crawl.AddCrawl(bad); err == nil || !strings.Contains(err.Error(), bad.Kind) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	for range 2 {
		if err := w.crawl.AddCrawl(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.crawl.ForgetCrawlCursor(discover.Source{Kind: "hosts", URL: s.URL}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("forget what is not there: %v", err)
	}
	w.Until("all", func() bool { return w.Store.Counts()["synced"] == 3 && w.ended(s.String()) })
	if c := w.crawls(); !c.Persisted || !c.Running || c.Found != 3 || c.Pages != 1 || c.Ended != 1 {
		t.Errorf("status %+v", c)
	}
	pages := func() int { return w.Net.RelayHost().Log().Requests[listRepos] }
	before := pages()
	if err := w.crawl.ForgetCrawlCursor(s); err != nil {
		t.Fatal(err)
	}
	w.Until("another pass", func() bool { return pages() == before+1 && w.ended(s.String()) })
	w.Stop()
	w.start(discover.Options{})
	w.Until("it to run again", func() bool { return w.crawls().Running })
	if err := w.crawl.RemoveCrawl(s); err != nil {
		t.Fatal(err)
	}
	if err := w.crawl.RemoveCrawl(s); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("remove it again: %v", err)
	}
	w.Stop()
	w.start(discover.Options{})
	if n := len(w.crawl.Crawls()); n != 0 || w.mark(s.String()) == (store.CrawlMark{}) {
		t.Errorf("%d sources after a restart, mark %+v", n, w.mark(s.String()))
	}
	if err := w.crawl.ForgetCrawlCursor(s); err != nil {
		t.Errorf("forget the cursor of a source that is gone: %v", err)
	}
}

// TestCrawlNamedStaysRemoved: a source that the options name, by --crawl or because of a relay,
// stays removed after a restart until it is added again.
func TestCrawlNamedStaysRemoved(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1, RecordsMedian: 2}})
	named := discover.Source{Kind: discover.SourceRepos, URL: w.Net.Relay()}
	implied := discover.Source{Kind: discover.SourceHosts, URL: w.Net.Relay(), Implied: true}
	var log bytes.Buffer
	restart := func() []discover.CrawlStatus {
		w.Stop()
		log.Reset()
		w.start(discover.Options{Crawl: []discover.Source{named, implied}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		return w.crawl.Crawls()
	}
	if all := restart(); len(all) != 2 || !all[0].Named || !all[1].Named {
		t.Fatalf("sources %+v", all)
	}
	for _, s := range []discover.Source{named, implied} {
		if err := w.crawl.RemoveCrawl(s); err != nil {
			t.Fatal(err)
		}
	}
	all := restart()
	w.Stop() // nothing is logged from here on
	if len(all) != 0 || strings.Count(log.String(), "is not read") != 2 {
		t.Errorf("after a restart there are %+v, and the log says %q", all, log.String())
	}
	w.start(discover.Options{Crawl: []discover.Source{named, implied}})
	if err := w.crawl.AddCrawl(named); err != nil {
		t.Fatal(err)
	}
	if all := restart(); len(all) != 1 || all[0].Source != named || !all[0].Named {
		t.Errorf("sources %+v, want the one that was added again", all)
	}
}

// TestCrawlEmptyPages: a page without accounts, or without active ones, is not the end of a list;
// an endless series of them is.
func TestCrawlEmptyPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 2, RecordsMedian: 2}})
	var mu sync.Mutex
	var cursors []string
	source := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		cursor := r.URL.Query().Get("cursor")
		cursors = append(cursors, cursor)
		n := 0
		fmt.Sscan(cursor, &n)
		entry := ""
		switch n {
		case 1:
			entry = inactive(w.Net.DIDs()[1], "deactivated")
		case 4:
			entry = active(w.Net.DIDs()[0], "")
		}
		fmt.Fprintf(rw, `{"cursor":"%d","repos":[%s]}`, n+1, entry)
	}))
	t.Cleanup(source.Close)
	s := discover.Source{Kind: discover.SourceRepos, URL: source.URL}
	if err := w.crawl.AddCrawl(s); err != nil {
		t.Fatal(err)
	}
	w.Until("the end", func() bool { return w.ended(s.String()) })
	mu.Lock()
	defer mu.Unlock()
	if want := 5 + 10; len(cursors) != want {
		t.Errorf("%d pages %q, want %d", len(cursors), cursors, want)
	}
	w.Settle(w.Net.DIDs()[0])
	w.Equal(w.Net.DIDs()[0])
}

// TestCrawlForgetsUnderway: a cursor that is forgotten while its page is requested does not return.
func TestCrawlForgetsUnderway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 6, RecordsMedian: 2}})
	l := newList(t)
	for _, did := range w.Net.DIDs() {
		l.entries = append(l.entries, active(did, ""))
	}
	l.hold = make(chan struct{})
	s := discover.Source{Kind: discover.SourceRepos, URL: l.URL}
	if err := w.crawl.AddCrawl(s); err != nil {
		t.Fatal(err)
	}
	w.Until("the second page", func() bool { return len(l.asked()) == 2 })
	if err := w.crawl.ForgetCrawlCursor(s); err != nil {
		t.Fatal(err)
	}
	l.set(func() { close(l.hold); l.hold = nil })
	w.Until("the end", func() bool { return w.ended(s.String()) })
	if got := l.asked(); slices.Index(got[1:], "") < 0 {
		t.Errorf("pages %q: it did not begin again", got)
	}
	w.Until("all", func() bool { return w.Store.Counts()["synced"] == 6 })
}

// TestCrawlHaltsWhileAsking: a source that hangs can be removed.
func TestCrawlHaltsWhileAsking(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1, RecordsMedian: 2}})
	l := newList(t)
	l.hold, l.holdAt = make(chan struct{}), 0
	s := discover.Source{Kind: discover.SourceRepos, URL: l.URL}
	if err := w.crawl.AddCrawl(s); err != nil {
		t.Fatal(err)
	}
	w.Until("the first page", func() bool { return len(l.asked()) == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	done := make(chan error, 1)
	context.AfterFunc(ctx, func() { done <- ctx.Err() })
	if err := w.crawl.RemoveCrawl(s); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		t.Fatal(err)
	default:
	}
}
