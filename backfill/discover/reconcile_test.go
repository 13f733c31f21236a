package discover_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cistern/backfill/backfilltest"
	"cistern/backfill/discover"
	"cistern/filter"
	"cistern/ingest/simnet"
	"cistern/store"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// list is a host that lists the repositories that a test gives it, two a page.
type list struct {
	*httptest.Server
	mu      sync.Mutex
	entries []string      // mu guards: JSON objects
	cursors []string      // mu guards: asked for
	status  int           // mu guards: of the answers, 0 for 200
	hold    chan struct{} // mu guards: the page at holdAt waits for it, unless nil
	holdAt  int
}

func newList(t testing.TB) *list {
	l := &list{holdAt: 2}
	l.Server = httptest.NewServer(http.HandlerFunc(l.serve))
	t.Cleanup(l.Close)
	return l
}

func (l *list) serve(w http.ResponseWriter, r *http.Request) {
	cursor := r.URL.Query().Get("cursor")
	l.mu.Lock()
	l.cursors = append(l.cursors, cursor)
	hold, status := l.hold, l.status
	at := 0
	fmt.Sscan(cursor, &at)
	to := min(at+2, len(l.entries))
	page := strings.Join(l.entries[at:to], ",")
	next := ""
	if to < len(l.entries) {
		next = fmt.Sprint(to)
	}
	l.mu.Unlock()
	if hold != nil && at == l.holdAt {
		select {
		case <-hold:
		case <-r.Context().Done():
			return
		}
	}
	if status != 0 {
		w.WriteHeader(status)
		return
	}
	fmt.Fprintf(w, `{"cursor":%q,"repos":[%s]}`, next, page)
}

func (l *list) set(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

func (l *list) asked() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.cursors)
}

func active(did, rev string) string {
	return fmt.Sprintf(`{"did":%q,"rev":%q,"active":true}`, did, rev)
}

func inactive(did, status string) string {
	return fmt.Sprintf(`{"did":%q,"rev":"","active":false,"status":%q}`, did, status)
}

// gap records that events of a host were missed, as the live side does.
func (w *world) gap(url string) {
	w.T.Helper()
	b := w.Store.NewBatch()
	b.PutReconciliation(url, store.Reconciliation{})
	if err := b.CommitSync(); err != nil {
		w.T.Fatal(err)
	}
	w.Wake()
}

// passes returns the requested reconciliations, by base URL.
func (w *world) passes() map[string]store.Reconciliation {
	w.T.Helper()
	all, err := w.Store.Reconciliations()
	if err != nil {
		w.T.Fatal(err)
	}
	return all
}

// TestReconcile: after a gap, repositories whose listed rev is ahead of their row are checked, and
// no other repository is.
func TestReconcile(t *testing.T) {
	t.Parallel()
	var log backfilltest.Buffer
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 2, Repos: 14, RecordsMedian: 10},
		crawl: discover.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}})
	dids := w.Net.DIDs()
	ahead, same, lying, future, bad, taken, known, back, throttled, idle := dids[0], dids[1], dids[2], dids[3], dids[4], dids[5], dids[6], dids[7], dids[8], dids[9]
	unknown := dids[13]
	hidden := []string{known, back}
	for _, did := range hidden {
		w.Net.Account(did).SetStatus(simnet.Deactivated)
	}
	w.Add(dids[:12]...)
	w.Settle(dids[:12]...)
	for _, did := range []string{ahead, idle, bad, future} {
		if _, err := w.Net.Account(did).Mutate(3); err != nil {
			t.Fatal(err)
		}
	}
	w.Untrack(idle)
	w.Net.Account(taken).SetStatus(simnet.Takendown)
	w.Net.Account(back).SetStatus(simnet.Active)
	rev := func(did string) string { return w.Net.Account(did).Truth().Rev }
	l := newList(t)
	l.entries = []string{
		active(ahead, rev(ahead)), active(same, rev(same)), active(lying, w.Net.Account(lying).NextTID()),
		active(future, syntax.NewTID(w.Clock.Now().Add(time.Hour).UnixMicro(), 0).String()), active(bad, "zzzzzzzzzzzzz"),
		inactive(taken, "takendown"), inactive(known, "deactivated"), active(back, rev(back)), inactive(throttled, "throttled"),
		active(idle, rev(idle)), active(unknown, rev(unknown)), active("no DID", ""),
	}
	asked := func(did string) int {
		h := w.Net.Account(did).Host()
		return len(h.Log().Fetches[did])
	}
	before := map[string]int{}
	for _, did := range dids {
		before[did] = asked(did)
	}
	w.gap(l.URL)
	w.Until("the pass to end", func() bool { return len(w.passes()) == 0 })
	w.Settle(dids[:12]...)
	w.Until("it to be said", func() bool { return strings.Contains(log.String(), "reconciliation ended") })
	if text := log.String(); !strings.Contains(text, "reconciliation begins") || !strings.Contains(text, "listed=12 queued=4 found=0") {
		t.Errorf("log %s", text)
	}
	for _, did := range []string{ahead, same, back, throttled} {
		w.Equal(did)
	}
	for did, n := range map[string]int{ahead: 1, same: 0, lying: 0, future: 0, bad: 0, taken: 0, known: 0, back: 1, throttled: 0, idle: 0} {
		if got := asked(did) - before[did]; got != n {
			t.Errorf("account %d: %d transfers, want %d", slices.Index(dids, did), got, n)
		}
	}
	if r := w.Row(taken); r.State != store.StateGone || r.Status != store.StatusTakendown {
		t.Errorf("taken down: %v %v", r.State, r.Status)
	}
	if r := w.Row(lying); r.State != store.StateResync || !r.Recheck {
		t.Errorf("ahead of its own host: %v, recheck %v", r.State, r.Recheck)
	}
	if _, err := w.Store.Repo(unknown); err == nil {
		t.Error("a repository was added that nobody asked for")
	}
	w.Gauges()
}

// TestReconcileResumes: a pass resumes after the last page that is done, after a failure of the
// host, a restart or a pause; a pass that is requested again starts over.
func TestReconcileResumes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 6, RecordsMedian: 5}})
	dids := w.Net.DIDs()
	l := newList(t)
	for _, did := range dids {
		l.entries = append(l.entries, active(did, w.Net.Account(did).Truth().Rev))
	}
	l.hold = make(chan struct{})
	source := discover.Source{Kind: discover.SourceRepos, URL: l.URL}
	w.gap(l.URL)
	w.Until("the second page", func() bool { return len(l.asked()) == 2 })
	w.Stop()
	if p := w.passes(); p[l.URL] != (store.Reconciliation{Stage: store.ReconcileReading, Cursor: "2"}) {
		t.Fatalf("passes %v", p)
	}
	w.start(discover.Options{})
	w.Until("the second page", func() bool { return len(l.asked()) == 3 })
	w.gap(l.URL) // while a page is requested
	l.set(func() { close(l.hold); l.hold = nil })
	w.Until("the pass to end", func() bool { return len(w.passes()) == 0 })
	if got, want := l.asked(), []string{"", "2", "2", "", "2", "4"}; !slices.Equal(got, want) {
		t.Errorf("pages %q, want %q", got, want)
	}
	if n := w.Store.Counts()["repos"]; n != 0 {
		t.Errorf("%d repositories were added", n)
	}

	// A host that fails is asked again.
	l.set(func() { l.cursors, l.status = nil, http.StatusBadGateway })
	w.gap(l.URL)
	w.Until("the failure", func() bool { return len(l.asked()) == 1 })
	id, err := w.Store.HostID(strings.TrimPrefix(l.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	w.Until("the host to be left alone", func() bool { return w.Run.HostStanding(id).State() == "parked" })
	if err := discover.LookAtPasses(t.Context(), w.crawl); err != nil {
		t.Fatal(err)
	}
	if n := len(l.asked()); n != 1 {
		t.Errorf("%d pages were asked for at once", n)
	}
	l.set(func() { l.status = 0 })
	w.Until("the pass to end", func() bool { return len(w.passes()) == 0 })

	// Unknown accounts are found if the host is crawled, too.
	w.Stop()
	w.start(discover.Options{Crawl: []discover.Source{source}, CrawlPendingMax: 1})
	w.gap(l.URL)
	w.Until("the pass to end", func() bool { return len(w.passes()) == 0 })
	w.Until("all repositories", func() bool { return w.Store.Counts()["synced"] == int64(len(dids)) })
}

// logHook calls hook for each message that is logged, in the goroutine that logs it.
type logHook struct {
	slog.Handler
	hook func(message string)
}

func (h logHook) Enabled(context.Context, slog.Level) bool { return true }
func (h logHook) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h logHook) Handle(_ context.Context, r slog.Record) error {
	h.hook(r.Message)
	return nil
}

// TestGapAtTheEndOfAPass: a gap that is noticed when a pass has deleted its cursor, and still
// counts as running, causes the listing to be read again.
func TestGapAtTheEndOfAPass(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1, RecordsMedian: 5}})
	w.Stop()
	l := newList(t)
	gaps := 0
	w.start(discover.Options{Logger: slog.New(logHook{hook: func(message string) {
		if message != "reconciliation ended" || gaps == 3 {
			return
		}
		gaps++
		w.gap(l.URL)
		for discover.GapSeen(w.crawl) {
			if err := discover.LookAtPasses(t.Context(), w.crawl); err != nil {
				t.Error(err)
				return
			}
		}
	}})})
	w.gap(l.URL)
	w.Until("four passes", func() bool { return len(l.asked()) == 4 && len(w.passes()) == 0 })
}

// TestGapIsRepairedWhileTheCrawlIsOff: missed commits are fetched, and unknown accounts stay
// unknown until the crawl is on.
func TestGapIsRepairedWhileTheCrawlIsOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 3, RecordsMedian: 5}})
	held := w.Net.Accounts()[0]
	w.Add(held.DID())
	w.Settle(held.DID())
	w.Filter(filter.Config{Mode: filter.ModeFull})
	w.crawlGate.Shut(backfilltest.Pausing)
	if err := w.crawl.AddCrawl(discover.Source{Kind: discover.SourceRepos, URL: w.Net.Relay()}); err != nil {
		t.Fatal(err)
	}
	if _, err := held.Mutate(2); err != nil {
		t.Fatal(err)
	}
	w.gap(w.Net.Relay())
	w.Until("the pass to end", func() bool { return len(w.passes()) == 0 })
	w.Until("what was missed", func() bool {
		row, err := w.Store.Repo(held.DID())
		return err == nil && row.State == store.StateSynced && row.Rev == held.Truth().Rev
	})
	if n := w.Store.Counts()["repos"]; n != 1 {
		t.Errorf("%d repositories are followed while the crawl is off, want 1", n)
	}
	w.crawlGate.Open(backfilltest.Pausing.Name)
	w.Until("the others", func() bool { return w.Store.Counts()["synced"] == 3 })
}

// TestReconcileAnewAtOnce: a pass that is requested again while its first page is requested starts
// over: the page may have been made before the new gap.
func TestReconcileAnewAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 4, RecordsMedian: 5}})
	l := newList(t)
	for _, did := range w.Net.DIDs() {
		l.entries = append(l.entries, active(did, w.Net.Account(did).Truth().Rev))
	}
	l.hold, l.holdAt = make(chan struct{}), 0
	w.gap(l.URL)
	w.Until("the first page", func() bool { return len(l.asked()) == 1 })
	w.gap(l.URL)
	l.set(func() { close(l.hold); l.hold = nil })
	w.Until("the pass to end", func() bool { return len(w.passes()) == 0 })
	if got, want := l.asked(), []string{"", "", "2"}; !slices.Equal(got, want) {
		t.Errorf("pages %q, want %q", got, want)
	}
	// A restart during the request for the first page continues with that page.
	l.set(func() { l.cursors, l.hold = nil, make(chan struct{}) })
	w.gap(l.URL)
	w.Until("the first page", func() bool { return len(l.asked()) == 1 })
	w.Stop()
	l.set(func() { l.hold = nil })
	w.start(discover.Options{})
	w.Until("the pass to end", func() bool { return len(w.passes()) == 0 })
	if got, want := l.asked(), []string{"", "", "2"}; !slices.Equal(got, want) {
		t.Errorf("pages %q, want %q", got, want)
	}
}

// TestReconcileUnderway: a listed rev that is ahead of a fetch under way is not dropped when the
// fetch ends below it.
func TestReconcileUnderway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 2, RecordsMedian: 5}})
	ahead, taken := w.Net.DIDs()[0], w.Net.DIDs()[1]
	slow := w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.Latency, Delay: 300 * time.Millisecond, DID: ahead})
	// The host sends an older rev than was announced meanwhile.
	stale := w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.StaleRev, DID: ahead, Count: 1})
	if _, err := w.Net.Account(ahead).Mutate(3); err != nil {
		t.Fatal(err)
	}
	drip := w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.SlowDrip, Bytes: 256, Delay: 50 * time.Millisecond, DID: taken, Count: 1})
	w.Add(ahead, taken)
	w.Until("the fetches to begin", func() bool { return slow.Fired() > 0 && drip.Fired() > 0 })
	l := newList(t)
	l.entries = []string{active(ahead, w.Net.Account(ahead).Truth().Rev), inactive(taken, "takendown")}
	w.gap(l.URL)
	w.Until("the pass to end", func() bool { return len(w.passes()) == 0 })
	w.Net.Account(taken).SetStatus(simnet.Takendown)
	w.Settle(ahead, taken)
	if stale.Fired() != 1 {
		t.Error("the older copy was not sent")
	}
	w.Equal(ahead)
	if r := w.Row(taken); r.State != store.StateGone {
		t.Errorf("%v", r.State)
	}
}

// TestReconcilePastDeadHosts: any number of hosts that do not answer does not prevent the
// comparison of other hosts.
func TestReconcilePastDeadHosts(t *testing.T) {
	t.Parallel()
	var log backfilltest.Buffer
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 2, RecordsMedian: 3},
		crawl: discover.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}})
	dids := w.Net.DIDs()
	w.Add(dids...)
	w.Settle(dids...)
	const dead = 40
	for i := range dead {
		w.gap(fmt.Sprintf("http://127.0.0.1:%d", 1+i))
	}
	w.Until("the dead to be asked", func() bool { return strings.Count(log.String(), "is held up") >= 15 })
	if _, err := w.Net.Account(dids[0]).Mutate(3); err != nil {
		t.Fatal(err)
	}
	w.gap(w.Net.Host(0).URL())
	w.Until("the living one to be gone through", func() bool { return len(w.passes()) == dead })
	w.Settle(dids...)
	w.Equal(dids[0])
}
