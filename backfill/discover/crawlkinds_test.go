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

// filter puts a filter in force.
func (w *world) filter(c filter.Config) {
	w.t.Helper()
	if _, err := w.store.SetFilter(c); err != nil {
		w.t.Fatal(err)
	}
	w.wake()
}

// mark returns the mark of a list. Its name is that of the source, then that of a host or
// collection.
func (w *world) mark(name string) store.CrawlMark {
	w.t.Helper()
	m, err := w.store.CrawlMark(listNamed(name))
	if err != nil {
		w.t.Fatal(err)
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
	w.t.Helper()
	all, err := w.store.DescribeRetries()
	if err != nil {
		w.t.Fatal(err)
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
	w.t.Helper()
	all := w.crawl.Crawls()
	if len(all) != 1 {
		w.t.Fatalf("sources %+v", all)
	}
	return all[0]
}

// TestCrawlHosts: the lists of hosts are read, so that accounts are found which the relay does not
// name. A host is asked once about an account that it lists as inactive. After a failure in the
// middle, the list of a host resumes where it was. No account is skipped.
func TestCrawlHosts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 5, Repos: 60, RecordsMedian: 2, QuietEvery: 4}})
	dids := w.net.DIDs()
	out := []string{dids[3], dids[8]} // the first of them quiet
	w.net.Account(out[0]).SetStatus(simnet.Deactivated)
	w.net.Account(out[1]).SetStatus(simnet.Takendown)
	banned := dids[11]
	dead := w.net.Host(2)
	if err := dead.Down(); err != nil {
		t.Fatal(err)
	}
	w.filter(filter.Config{Mode: filter.ModeFull, Excludes: []string{banned}})
	w.stop()
	source := discover.Source{Kind: discover.SourceHosts, URL: w.net.Relay(), Implied: true}
	options := discover.Options{Crawl: []discover.Source{source}}
	w.start(options)
	alive := 0
	for _, did := range dids {
		if w.net.Account(did).Host() != dead && did != banned && !slices.Contains(out, did) {
			alive++
		}
	}
	w.until("all of the hosts that are up", func() bool { return w.store.Counts()["synced"] == int64(alive) })
	w.until("inactive accounts to be asked for", func() bool { return w.store.Counts()["gone"] == int64(len(out)) })
	for _, did := range out {
		r, truth := w.row(did), w.net.Account(did).Truth()
		if r.Status.String() != string(truth.Status) || r.Tracked != store.ByNetwork || r.PDS != truth.Host {
			t.Errorf("inactive: %+v", r)
		}
		if n := len(w.net.Account(did).Host().Log().Fetches[did]); n != 1 {
			t.Errorf("%s was asked for %d times", did, n)
		}
	}
	if _, err := w.store.Repo(banned); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("an excluded repository: %v", err)
	}
	if n := w.net.RelayHost().Log().Requests[listRepos]; n != 0 {
		t.Errorf("the relay was asked %d times for accounts", n)
	}
	w.until("the failure to show", func() bool { return w.crawls().Failing == 1 })
	s := w.crawls()
	if s.Lists != 6 || s.Ended != 5 || s.Failure == "" || !s.Running || s.Persisted {
		t.Errorf("status %+v", s)
	}
	// Its return is noticed within an hour, the longest pause, after a restart too.
	w.stop()
	if err := dead.Up(); err != nil {
		t.Fatal(err)
	}
	before := w.net.Host(0).Log().Requests[listRepos]
	w.start(options)
	all := int64(len(dids) - len(out) - 1)
	w.until("all", func() bool { return w.store.Counts()["synced"] == all })
	if n := w.net.Host(0).Log().Requests[listRepos]; n != before {
		t.Error("a list that had come to its end was read again")
	}
	w.until("the pass to end", func() bool { return w.crawls().Ended == 6 && !w.crawls().PassEnded.IsZero() })
	for _, did := range dids {
		if did != banned && !slices.Contains(out, did) {
			w.equal(did)
		}
	}
	// An account that returns, and a repository that changed without an event, are found a day
	// later.
	w.net.Account(out[0]).SetStatus(simnet.Active)
	ahead := dids[0]
	if _, err := w.net.Account(ahead).Mutate(3); err != nil {
		t.Fatal(err)
	}
	w.clock.advance(25 * time.Hour)
	w.wake()
	w.until("the next pass", func() bool {
		return w.store.Counts()["synced"] == all+1 && w.row(ahead).Rev == w.net.Account(ahead).Truth().Rev
	})
	w.equal(out[0])
	w.equal(ahead)
	if n := w.store.Counts()["behind"]; n != 0 {
		t.Errorf("%d are behind", n)
	}
}

// TestCrawlMigrated: an account that moved is listed as deactivated by its former host. That does
// not hide its current host, in whatever order the hosts are read.
func TestCrawlMigrated(t *testing.T) {
	t.Parallel()
	for former := range 2 {
		w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 2, Repos: 6, RecordsMedian: 2}})
		moved := w.net.Account(w.net.DIDs()[former])
		moved.Migrate(w.net.Host(1 - former))
		w.filter(filter.Config{Mode: filter.ModeFull})
		w.stop()
		w.start(discover.Options{Crawl: []discover.Source{{Kind: discover.SourceHosts, URL: w.net.Relay()}}, CrawlEvery: time.Hour})
		w.until("all", func() bool {
			if w.store.Counts()["synced"] == 6 {
				return true
			}
			if w.crawls().Ended == 3 { // the new host was read first
				w.clock.advance(time.Hour)
				w.wake()
			}
			return false
		})
		w.equal(moved.DID())
		w.stop()
	}
}

// TestCrawlHostsClaims: a host's list has no effect on accounts of other hosts.
func TestCrawlHostsClaims(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 4, RecordsMedian: 3}})
	dids := w.net.DIDs()
	w.add(dids...)
	w.settle(dids...)
	w.filter(filter.Config{Mode: filter.ModeFull})
	asked := len(w.net.Host(0).Log().Fetches[dids[0]]) + w.net.Host(0).Log().Requests["com.atproto.sync.getLatestCommit"]
	liar := newList(t)
	liar.entries = []string{active(dids[0], w.net.Account(dids[0]).NextTID()), inactive(dids[1], "takendown"), active("no DID", "")}
	relay := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(rw, `{"hosts":[{"hostname":%q,"status":"active"},{"hostname":"10.0.0.1:x"},{"hostname":"a/b"},{"hostname":"banned.test","status":"banned"}]}`,
			strings.TrimPrefix(liar.URL, "http://"))
	}))
	t.Cleanup(relay.Close)
	w.stop()
	w.start(discover.Options{Crawl: []discover.Source{{Kind: discover.SourceHosts, URL: relay.URL}}})
	// The lists include that of the host that the relay does not name.
	w.until("the pass to end", func() bool { return w.crawls().Ended == 3 })
	if s := w.crawls(); s.Lists != 3 || s.Queued != 0 || s.Found != 0 {
		t.Errorf("status %+v", s)
	}
	for _, did := range dids {
		w.equal(did)
	}
	if n := len(w.net.Host(0).Log().Fetches[dids[0]]) + w.net.Host(0).Log().Requests["com.atproto.sync.getLatestCommit"]; n != asked {
		t.Error("the repository was asked for")
	}
}

// postsOf returns the accounts that hold a collection.
func (w *world) holders(nsid string) []string {
	var dids []string
	for _, a := range w.net.Accounts() {
		if slices.ContainsFunc(a.Paths(), func(p string) bool { return path.Dir(p) == nsid }) {
			dids = append(dids, a.DID())
		}
	}
	return dids
}

// some is a collection that some accounts hold, not all.
func (w *world) some() (nsid string, dids []string) {
	w.t.Helper()
	for _, a := range w.net.Accounts() {
		for _, p := range a.Paths() {
			if dids := w.holders(path.Dir(p)); len(dids) < len(w.net.Accounts()) {
				return path.Dir(p), dids
			}
		}
	}
	w.t.Fatal("every account holds every collection")
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
		w.filter(filter.Config{Signals: []string{"com.example.nothing.*"}})
		w.net.Host(0).Inject(simnet.Fault{Kind: simnet.ServerError, Endpoint: describe, Count: 1})
		w.stop()
		w.start(discover.Options{Crawl: []discover.Source{{Kind: kind, URL: w.net.Relay()}}})
		lists := map[string]int{discover.SourceRepos: 1, discover.SourceHosts: 4}[kind]
		w.until("the pass to end", func() bool { return w.crawls().Ended == lists })
		if n := w.store.Counts()["repos"]; n != 0 {
			t.Errorf("%s: %d repositories hold nothing that a signal names", kind, n)
		}
		w.filter(filter.Config{Signals: []string{"com.example.nothing.*", nsid}})
		w.until("those of the new signal", func() bool { return w.store.Counts()["repos"] >= int64(len(want)) })
		w.until("the pass to end", func() bool { return w.crawls().Ended == lists })
		w.settle(want...)
		for _, did := range want {
			if r := w.row(did); r.Tracked != store.BySignal || r.State != store.StateSynced {
				t.Errorf("%s: %+v", kind, r)
			}
		}
		if n := w.store.Counts()["repos"]; n != int64(len(want)) {
			t.Errorf("%s: %d repositories, want %d", kind, n, len(want))
		}
		w.stop()
	}
}

// TestCrawlDescribeFails: a host that does not report the collections of an account is asked again,
// after a restart too, and delays no other account.
func TestCrawlDescribeFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 6, RecordsMedian: 3}})
	sick := w.net.DIDs()[2]
	fault := w.net.Host(0).Inject(simnet.Fault{Kind: simnet.Garbage, Endpoint: describe, DID: sick})
	w.filter(filter.Config{Signals: []string{"app.*"}})
	w.stop()
	options := discover.Options{Crawl: []discover.Source{{Kind: discover.SourceRepos, URL: w.net.Relay()}}}
	w.start(options)
	w.until("the others", func() bool { return w.crawls().Ended == 1 && w.store.Counts()["synced"] == 5 })
	if _, ok := w.later(sick); !ok {
		t.Fatal("it is not to be asked again")
	}
	w.stop()
	before := fault.Fired()
	w.clock.advance(20 * time.Minute)
	w.start(options)
	w.until("another try", func() bool {
		d, _ := w.later(sick)
		return fault.Fired() > before && d.Tries == 2
	})
	fault.Clear()
	w.clock.advance(time.Hour)
	w.stop()
	w.start(options)
	w.until("it", func() bool { return w.store.Counts()["synced"] == 6 })
	if d, ok := w.later(sick); ok {
		t.Errorf("still to be asked: %+v", d)
	}
	w.equal(sick)
}

// TestCrawlCollection: an account with a collection is followed at once, for each signal that names
// one collection.
func TestCrawlCollection(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 2, Repos: 20, RecordsMedian: 2, Seed: 7}})
	nsid, want := w.some()
	w.filter(filter.Config{Signals: []string{"app.bsky.*"}}) // names no collection
	w.stop()
	source := discover.Source{Kind: discover.SourceCollection, URL: w.net.Relay()}
	w.start(discover.Options{Crawl: []discover.Source{source}})
	w.filter(filter.Config{Signals: []string{"app.bsky.*", nsid}, Excludes: want[:1]})
	w.until("the pass to end", func() bool { return w.ended(source.String() + "::" + nsid) })
	w.settle(want[1:]...)
	if n := w.store.Counts()["repos"]; n != int64(len(want)-1) {
		t.Errorf("%d repositories, want %d", n, len(want)-1)
	}
	if r := w.row(want[1]); r.Tracked != store.BySignal {
		t.Errorf("followed because of %v", r.Tracked)
	}
	if l := w.net.RelayHost().Log(); l.Requests[describe]+l.Requests[listRepos] != 0 || l.Requests[collection] == 0 {
		t.Errorf("requests %v", l.Requests)
	}
}

// TestCrawlWhy: without signals, all accounts of a list that the operator named are followed, and
// none of an implied list.
func TestCrawlWhy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 3, RecordsMedian: 2}})
	w.stop()
	w.start(discover.Options{Crawl: []discover.Source{{Kind: discover.SourceHosts, URL: w.net.Relay(), Implied: true}}})
	if err := w.crawl.AddCrawl(discover.Source{Kind: discover.SourceRepos, URL: w.net.Host(0).URL()}); err != nil {
		t.Fatal(err)
	}
	w.until("all", func() bool { return w.store.Counts()["synced"] == 3 })
	if n := len(w.net.RelayHost().Log().Requests); n != 0 {
		t.Errorf("%d requests of an implied source, while another was listed to its end", n)
	}
	if r := w.row(w.net.DIDs()[0]); r.Tracked != store.ByOperator {
		t.Errorf("followed because of %v", r.Tracked)
	}
}

// TestCrawlSourcesComeAndGo: a source that was added at run time exists after a restart, and a
// removed one does not; after its cursor was forgotten, a list is read from the beginning.
func TestCrawlSourcesComeAndGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 3, RecordsMedian: 2}})
	s := discover.Source{Kind: discover.SourceRepos, URL: w.net.Relay()}
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
	w.until("all", func() bool { return w.store.Counts()["synced"] == 3 && w.ended(s.String()) })
	if c := w.crawls(); !c.Persisted || !c.Running || c.Found != 3 || c.Pages != 1 || c.Ended != 1 {
		t.Errorf("status %+v", c)
	}
	pages := func() int { return w.net.RelayHost().Log().Requests[listRepos] }
	before := pages()
	if err := w.crawl.ForgetCrawlCursor(s); err != nil {
		t.Fatal(err)
	}
	w.until("another pass", func() bool { return pages() == before+1 && w.ended(s.String()) })
	w.stop()
	w.start(discover.Options{})
	w.until("it to run again", func() bool { return w.crawls().Running })
	if err := w.crawl.RemoveCrawl(s); err != nil {
		t.Fatal(err)
	}
	if err := w.crawl.RemoveCrawl(s); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("remove it again: %v", err)
	}
	w.stop()
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
	named := discover.Source{Kind: discover.SourceRepos, URL: w.net.Relay()}
	implied := discover.Source{Kind: discover.SourceHosts, URL: w.net.Relay(), Implied: true}
	var log bytes.Buffer
	restart := func() []discover.CrawlStatus {
		w.stop()
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
	w.stop() // nothing is logged from here on
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
			entry = inactive(w.net.DIDs()[1], "deactivated")
		case 4:
			entry = active(w.net.DIDs()[0], "")
		}
		fmt.Fprintf(rw, `{"cursor":"%d","repos":[%s]}`, n+1, entry)
	}))
	t.Cleanup(source.Close)
	s := discover.Source{Kind: discover.SourceRepos, URL: source.URL}
	if err := w.crawl.AddCrawl(s); err != nil {
		t.Fatal(err)
	}
	w.until("the end", func() bool { return w.ended(s.String()) })
	mu.Lock()
	defer mu.Unlock()
	if want := 5 + 10; len(cursors) != want {
		t.Errorf("%d pages %q, want %d", len(cursors), cursors, want)
	}
	w.settle(w.net.DIDs()[0])
	w.equal(w.net.DIDs()[0])
}

// TestCrawlForgetsUnderway: a cursor that is forgotten while its page is requested does not return.
func TestCrawlForgetsUnderway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 6, RecordsMedian: 2}})
	l := newList(t)
	for _, did := range w.net.DIDs() {
		l.entries = append(l.entries, active(did, ""))
	}
	l.hold = make(chan struct{})
	s := discover.Source{Kind: discover.SourceRepos, URL: l.URL}
	if err := w.crawl.AddCrawl(s); err != nil {
		t.Fatal(err)
	}
	w.until("the second page", func() bool { return len(l.asked()) == 2 })
	if err := w.crawl.ForgetCrawlCursor(s); err != nil {
		t.Fatal(err)
	}
	l.set(func() { close(l.hold); l.hold = nil })
	w.until("the end", func() bool { return w.ended(s.String()) })
	if got := l.asked(); slices.Index(got[1:], "") < 0 {
		t.Errorf("pages %q: it did not begin again", got)
	}
	w.until("all", func() bool { return w.store.Counts()["synced"] == 6 })
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
	w.until("the first page", func() bool { return len(l.asked()) == 1 })
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
