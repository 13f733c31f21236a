package ingest_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"cistern/filter"
	"cistern/ingest/repo"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"
)

// Others change rows while their events pass. Of what they wrote nothing is lost, and no commit is
// applied to an earlier row.
func TestRowsOfOthersAreKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	const rounds, burst = 60, 10
	for i := range rounds {
		for j := range burst {
			w.put(a, "app.test.x/one", fmt.Sprint(i, " ", j))
		}
		a.Announce(true, simnet.Active) // its time is written
		w.send()
		for range burst {
			set(w, a, func(r *store.Repo) { r.Missing++ })
		}
	}
	w.settle()
	w.equal(a)
	row := w.row(a)
	if row.Missing != rounds*burst || row.Breaks != 0 || row.Attempt != 0 || row.AccountTime == 0 {
		t.Errorf("%d changes of %d are left; %d breaks, attempt %d, account event of %d", row.Missing, rounds*burst, row.Breaks, row.Attempt, row.AccountTime)
	}
	w.until("the log is durable", func() bool { lines, _ := w.log(a); return len(lines) >= rounds*burst })
	if lines, _ := w.log(a); len(lines) != rounds*burst {
		t.Errorf("%d changes in the log, want %d", len(lines), rounds*burst)
	}
}

// Events that wait together are written together: one batch, with all that each of them changes.
func TestEventsShareABatch(t *testing.T) {
	t.Parallel()
	var batches atomic.Int64
	w := newWorldIn(t, store.Options{Step: func(step string) {
		if step == "applied" {
			batches.Add(1)
		}
	}}, func(w *world) { w.opts.Shards = 1 })
	accounts := w.net.Accounts()
	w.hold(accounts...)
	w.skip()
	unlock := w.store.Lock(accounts[0].DID())
	before := batches.Load()
	for _, a := range accounts { // the shard gets no further than the first
		w.put(a, "app.test.x/one", "1")
		w.send()
	}
	unlock()
	w.settle()
	if n := batches.Load() - before; n < 1 || n > 2 {
		t.Errorf("%d batches for %d events", n, len(accounts))
	}
	for _, a := range accounts {
		w.equal(a)
	}
}

// A commit without operations moves the rev, and the next one follows it.
func TestEmptyCommits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	for i := range 3 {
		if _, err := a.Commit(); err != nil {
			t.Fatal(err)
		}
		w.pass()
		w.equal(a)
		if row := w.row(a); repo.HashCID(row.Commit) != a.Truth().Commit {
			t.Error("the row keeps another commit")
		}
		w.put(a, "app.test.x/one", fmt.Sprint(i))
	}
	w.pass()
	w.equal(a)
	if n := w.count("events_total", "commit", "applied"); n != 6 {
		t.Errorf("%d commits were applied, want 6", n)
	}
}

// A key that is not a valid path is kept, since the tree has it, and not shown; the other
// operations are.
func TestCommitsOfOddPaths(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	hidden := w.row(a).Hidden
	odd := []string{"no path", "app.test.x/..", "app.test.x/a/b", "notansid/a", "/", "app.test.x/" + strings.Repeat("k", 513)}
	record := simnet.EncodeRecord(simnet.Post("odd"))
	writes := []simnet.Write{{Path: "app.test.x/one", Record: record}}
	for i, path := range odd {
		writes = append(writes, simnet.Write{Path: path, Record: record}, simnet.Write{Path: fmt.Sprint("app.test.x/", i), Record: record})
	}
	if _, err := a.Commit(writes...); err != nil {
		t.Fatal(err)
	}
	w.pass()
	w.equal(a)
	if n := w.row(a).Hidden - hidden; int(n) != len(odd) {
		t.Errorf("%d records are hidden, want %d", n, len(odd))
	}
	w.until("the log is durable", func() bool { lines, _ := w.log(a); return len(lines) == len(odd)+1 })
	for _, path := range odd {
		if _, err := a.Delete(path); err != nil {
			t.Fatal(err)
		}
	}
	w.pass()
	w.equal(a)
	if row := w.row(a); row.Hidden != hidden || row.Breaks != 0 {
		t.Errorf("%d records are hidden, %d breaks", row.Hidden, row.Breaks)
	}
	if lines, _ := w.log(a); len(lines) != len(odd)+1 {
		t.Errorf("log %q", lines)
	}
}

// Bytes that are no record are what the account has signed: they are kept, and told as they are.
func TestRecordsThatAreNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	head := storetest.Head(w.t, w.store)
	records := [][]byte{
		{0xff}, {0xa1}, {0xa1, 0x61, 'x', 0xfb, 0, 0, 0, 0, 0, 0, 0, 0}, bytes.Repeat([]byte{0x81}, 5000), []byte("text"),
		{0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, bytes.Repeat([]byte{0}, 1<<20+1), {0xa0},
	}
	for i, record := range records {
		if _, err := a.Commit(simnet.Write{Path: fmt.Sprint("app.test.x/", i), Record: record}); err != nil {
			t.Fatal(err)
		}
	}
	w.pass()
	w.equal(a)
	w.until("the log is durable", func() bool { lines, _ := w.log(a); return len(lines) == len(records) })
	seen := 0
	for cursor := head + 1; cursor <= w.store.Head(); {
		next, err := w.store.ReadLog(t.Context(), cursor, 100, func(e *store.Event) error {
			if !bytes.Equal(e.Record, records[seen]) {
				return errors.New("another record")
			}
			seen++
			return nil
		})
		if err != nil {
			t.Fatalf("event %d: %v", seen, err)
		}
		cursor = next
	}
}

// An account that the operator added is followed whatever it writes, even if other accounts are
// found by their records.
func TestFollowedWithoutSignal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stop()
	w.follow(filter.ModeFilter, "app.other.*")
	w.start()
	a, b := w.net.Accounts()[0], w.net.Accounts()[1]
	w.hold(a) // by an operator
	w.skip()
	w.put(a, "app.test.x/one", "1")
	w.put(b, "app.test.x/one", "1")
	w.pass()
	w.equal(a)
	w.logs(a, "create app.test.x/one")
	if row, err := w.store.RepoOrNew(b.DID()); err != nil || row.Known() {
		t.Errorf("the other is known: %v", err)
	}
	if row := w.row(a); row.Tracked != store.ByOperator {
		t.Errorf("tracked %v", row.Tracked)
	}
}
