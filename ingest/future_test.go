package ingest_test

import (
	"testing"
	"time"

	"cistern/filter"
	"cistern/ingest/repo"
	"cistern/ingest/simnet"
	"cistern/store"
)

func (w *world) setClock(at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = at
}

// slow sets our clock behind the rev of a commit.
func (w *world) slow(rev string, by time.Duration) { w.setClock(repo.TIDTime(rev).Add(-by)) }

// TestFutureRevs: commits that come while our clock is slow are dropped, and the row says when to
// fetch what they brought.
func TestFutureRevs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	before := w.row(a)
	first := w.put(a, "app.test.x/one", "1")
	w.put(a, "app.test.x/two", "1")
	w.slow(first.Rev, 10*time.Minute)
	w.pass()
	row, due := w.row(a), repo.TIDTime(first.Rev).Add(-repo.RevSkewMax)
	if row.State != store.StateSynced || row.Rev != before.Rev || row.SeenRev != first.Rev || !row.Behind() || row.Breaks != 1 {
		t.Errorf("row is %s at %s, seen %q, %d breaks", row.State, row.Rev, row.SeenRev, row.Breaks)
	}
	if got := time.Unix(row.FutureDue, 0); got.Before(due) || got.After(due.Add(time.Second)) {
		t.Errorf("due at %s, want %s", got, due)
	}
	if n := w.count("rejected_total", "future"); n != 2 {
		t.Errorf("%d rejected for their rev, want 2", n)
	}
	w.until("Wake is called", w.woken)
	w.logs(a)
}

// TestFutureRevOfALiar: for a rev in the far future the repository is fetched after a day. It keeps
// no other future rev from being noticed, and no commit from being applied.
func TestFutureRevOfALiar(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	w.put(a, "app.test.x/one", "1")
	m := w.next("#commit")
	w.hand(altered(t, m, func(b body) { b["rev"] = "3zzzzzzzzzzzz" }))
	if got := time.Unix(w.row(a).FutureDue, 0).Sub(w.clock()).Round(time.Minute); got != 24*time.Hour {
		t.Errorf("due in %s", got)
	}
	w.hand(m)
	if row := w.row(a); row.State != store.StateSynced || row.Rev != a.Truth().Rev {
		t.Errorf("row is %s at %s", row.State, row.Rev)
	}
	w.skip()
	commit := w.put(a, "app.test.x/two", "1")
	w.slow(commit.Rev, 10*time.Minute)
	w.hand(w.next("#commit"))
	row, wait := w.row(a), repo.TIDTime(commit.Rev).Add(-repo.RevSkewMax).Unix()
	if row.FutureDue < wait || row.FutureDue > wait+1 {
		t.Errorf("due at %d, want %d", row.FutureDue, wait)
	}
}

// TestFutureRevBudget: commits from the future cause no more fetches than invalid commits do.
func TestFutureRevBudget(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	commit := w.put(a, "app.test.x/one", "1")
	m := w.next("#commit")
	for i := range 6 {
		w.slow(commit.Rev, repo.RevSkewMax+time.Second)
		w.hand(m)
		row := w.row(a)
		wait := time.Unix(row.FutureDue, 0).Sub(repo.TIDTime(commit.Rev).Add(-repo.RevSkewMax))
		if i > 0 && wait < 55*time.Second<<(i-1) {
			t.Errorf("look %d: after %s", i, wait)
		}
		set(w, a, func(r *store.Repo) { r.FutureDue = 0 }) // it was looked at
	}
}

// TestFutureRevWhileFetched: the copy that is being made may lack the commit.
func TestFutureRevWhileFetched(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.skip()
	complete := fetching(w, a, 1)
	w.slow(a.Truth().Rev, 10*time.Minute)
	w.pass()
	if w.store.Buffered(a.DID()) != 0 {
		t.Error("it is buffered")
	}
	complete()
	if row := w.row(a); row.State != store.StateSynced || row.FutureDue == 0 {
		t.Errorf("row is %s, due %d", row.State, row.FutureDue)
	}
	dids, _, err := w.store.DueRetries(repo.TIDTime(a.Truth().Rev), 10)
	if err != nil || len(dids) != 1 {
		t.Errorf("due: %q, %v", dids, err)
	}
}

// TestFutureRevOfUnknown: an account whose host's clock is fast is discovered all the same.
func TestFutureRevOfUnknown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.follow(filter.ModeFull)
	a := w.net.Accounts()[0]
	w.skip()
	w.net.RelayHost().InjectStream(simnet.StreamFault{Kind: simnet.StreamFutureRev, DID: a.DID(), Count: 1})
	w.put(a, "app.test.x/one", "1")
	w.pass()
	if row := w.row(a); row.State != store.StatePending || row.Tracked != store.ByNetwork || row.SeenRev != "" {
		t.Errorf("row %+v", row)
	}
}
