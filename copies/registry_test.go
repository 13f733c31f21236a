package copies_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cistern/copies"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sync/errgroup"
)

// book is a Keeper in memory.
type book struct {
	mu   sync.Mutex
	rows []copies.Row
	err  error
}

func (b *book) Load() ([]copies.Row, error) { return slices.Clone(b.rows), b.err }

func (b *book) Save(rows []copies.Row) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.rows = slices.Clone(rows)
	}
	return b.err
}

// world is a registry with a clock.
type world struct {
	*testing.T
	*copies.Registry
	book *book
	now  time.Time
	reg  *prometheus.Registry
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, book: &book{}, now: time.Unix(1_000_000, 0)}
	w.restart()
	return w
}

func (w *world) restart() {
	w.Helper()
	w.reg = prometheus.NewRegistry()
	var err error
	w.Registry, err = copies.New(copies.Options{Keeper: w.book, Registerer: w.reg, Now: func() time.Time { return w.now }})
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) later(seconds int) time.Time {
	w.now = w.now.Add(time.Duration(seconds) * time.Second)
	return w.now
}

func (w *world) want(all ...copies.Status) {
	w.Helper()
	if diff := cmp.Diff(all, w.View()); diff != "" {
		w.Error(diff)
	}
}

func (w *world) report(id string, r copies.Result) {
	w.Helper()
	if err := w.Report(id, r); err != nil {
		w.Error(err)
	}
}

var toBackups = copies.Statement{Kind: copies.Backup, Destination: "s3://backups/a"}

// TestResults: a copy is under way until it has a result. A success stays when a later copy fails, is
// killed or is cut off by a restart (invariants 1 and 2).
func TestResults(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.want()
	began := w.now
	id := w.Begin(toBackups)
	w.want(copies.Status{Row: copies.Row{Statement: toBackups, Began: began}, Running: 1})
	done := w.later(60)
	w.report(id, copies.Result{Complete: true, Generation: "g1", Bytes: 7})
	good := copies.Row{Statement: toBackups, Ended: done, Succeeded: done, Generation: "g1", Bytes: 7, Took: time.Minute}
	w.want(copies.Status{Row: good})
	w.End(id, copies.Gone) // the connection ends afterwards
	w.want(copies.Status{Row: good})
	if err := w.Report(id, copies.Result{Error: "again"}); !errors.Is(err, copies.ErrUnknown) {
		t.Errorf("a second result: %v", err)
	}

	w.later(60)
	id = w.Begin(toBackups)
	bad := good
	bad.Ended, bad.Error, bad.Failures = w.later(5), "no space left on device", 1
	w.report(id, copies.Result{Error: bad.Error})
	w.want(copies.Status{Row: bad})

	id = w.Begin(toBackups)
	bad.Ended, bad.Error, bad.Failures = w.later(5), copies.Gone, 2
	w.End(id, copies.Gone)
	w.want(copies.Status{Row: bad})
	w.restart()
	w.want(copies.Status{Row: bad})

	cut := w.later(5)
	w.Begin(toBackups)
	w.later(3600)
	w.restart()
	bad.Ended, bad.Error, bad.Failures = cut, copies.Stopped, 3
	w.want(copies.Status{Row: bad})

	id = w.Begin(toBackups)
	done = w.later(1)
	w.report(id, copies.Result{Complete: true, Generation: "g2", Error: "an older backup was not deleted"})
	w.want(copies.Status{Row: copies.Row{Statement: toBackups, Ended: done, Succeeded: done, Generation: "g2", Took: time.Second,
		Error: "an older backup was not deleted", Failures: 4}})
	id = w.Begin(toBackups)
	w.report(id, copies.Result{Complete: true, Generation: "g3"})
	w.want(copies.Status{Row: copies.Row{Statement: toBackups, Ended: done, Succeeded: done, Generation: "g3"}})
}

// TestTwoAtOnce: copies of one destination and of several are apart, and so are an export and a backup
// at the same destination.
func TestTwoAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	toExports := copies.Statement{Kind: copies.Export, Destination: toBackups.Destination}
	first, began := w.Begin(toBackups), w.now
	second, later := w.Begin(toBackups), w.later(1)
	third := w.Begin(toExports)
	w.want(copies.Status{Row: copies.Row{Statement: toBackups, Began: began}, Running: 2},
		copies.Status{Row: copies.Row{Statement: toExports, Began: later}, Running: 1})
	w.report(second, copies.Result{Error: "locked"})
	w.End(third, copies.Gone)
	w.want(copies.Status{Row: copies.Row{Statement: toBackups, Began: began, Ended: later, Error: "locked", Failures: 1}, Running: 1},
		copies.Status{Row: copies.Row{Statement: toExports, Ended: later, Error: copies.Gone, Failures: 1}})
	w.report(first, copies.Result{Complete: true, Generation: "g", Bytes: 9})
	w.want(copies.Status{Row: copies.Row{Statement: toBackups, Ended: later, Succeeded: later, Generation: "g", Bytes: 9, Took: time.Second}},
		copies.Status{Row: copies.Row{Statement: toExports, Ended: later, Error: copies.Gone, Failures: 1}})
	err := testutil.GatherAndCompare(w.reg, strings.NewReader(`
# HELP cistern_copies_failing Destinations whose last copy ended with an error or without a result.
# TYPE cistern_copies_failing gauge
cistern_copies_failing{kind="backup"} 0
cistern_copies_failing{kind="export"} 1
# HELP cistern_copies_failures_total Copies by commands that ended with an error or without a result. The daemon does not try them again.
# TYPE cistern_copies_failures_total counter
cistern_copies_failures_total{kind="backup"} 1
cistern_copies_failures_total{kind="export"} 1
# HELP cistern_copies_last_success_timestamp_seconds When a command last completed a copy, at any destination, also before a restart. 0: no complete copy is known.
# TYPE cistern_copies_last_success_timestamp_seconds gauge
cistern_copies_last_success_timestamp_seconds{kind="backup"} 1.000001e+06
cistern_copies_last_success_timestamp_seconds{kind="export"} 0
# HELP cistern_copies_size_bytes Size of the last complete copy.
# TYPE cistern_copies_size_bytes gauge
cistern_copies_size_bytes{kind="backup"} 9
cistern_copies_size_bytes{kind="export"} 0
`), "cistern_copies_failing", "cistern_copies_failures_total", "cistern_copies_last_success_timestamp_seconds", "cistern_copies_size_bytes")
	if err != nil {
		t.Error(err)
	}
}

// TestDestinationsAreBounded: many destinations of exports leave the backups alone, and the copy that
// is under way (invariant 3).
func TestDestinationsAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.report(w.Begin(toBackups), copies.Result{Complete: true, Generation: "g"})
	long := w.Begin(copies.Statement{Kind: copies.Export, Destination: "/long"})
	const most = 16
	for i := range 3 * most {
		w.later(1)
		w.report(w.Begin(copies.Statement{Kind: copies.Export, Destination: fmt.Sprintf("/exports/%d", i)}), copies.Result{Complete: true})
	}
	all := w.View()
	if len(all) != 1+most || all[0].Statement != toBackups || all[1].Destination != fmt.Sprintf("/exports/%d", 3*most-1) ||
		all[most].Destination != "/long" || len(w.book.rows) != len(all) {
		t.Errorf("%d rows, %d kept: %+v", len(all), len(w.book.rows), all)
	}
	w.report(long, copies.Result{Complete: true})
}

// TestSaved: what is kept is the last state, however reports overlap. An error of the Keeper reaches
// the command that reports.
func TestSaved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var g errgroup.Group
	for i := range 16 {
		g.Go(func() error {
			id := w.Begin(copies.Statement{Kind: copies.Backup, Destination: fmt.Sprint("/b/", i%4)})
			return w.Report(id, copies.Result{Complete: true, Generation: fmt.Sprint(i)})
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	before := w.View()
	w.restart()
	w.want(before...)
	broken := errors.New("broken")
	w.book.err = broken
	if err := w.Report(w.Begin(toBackups), copies.Result{Error: "x"}); !errors.Is(err, broken) {
		t.Errorf("a result that was not saved: %v", err)
	}
	if _, err := copies.New(copies.Options{Keeper: w.book}); !errors.Is(err, broken) {
		t.Errorf("results that cannot be read: %v", err)
	}
}
