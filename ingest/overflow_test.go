package ingest_test

import (
	"fmt"
	"strings"
	"testing"

	"cistern/ingest/simnet"
	"cistern/store"
)

// More commits come during a fetch than may be kept. What is left of them are no continuation of
// the copy, which is found out at once, and the repository is fetched again for what is missing.
func TestBufferOverflows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.skip()
	complete := fetching(w, a, 1)
	const commits = 40
	for i := range commits { // of 0.9 MB each, of which 16 MiB are kept
		w.put(a, fmt.Sprintf("app.test.large/%d", i), strings.Repeat("0", 900_000))
	}
	w.pass()
	n := w.store.Buffered(a.DID())
	if row := w.row(a); n == 0 || n >= commits || row.SeenRev == "" || row.State != store.StatePending {
		t.Fatalf("%d commits are buffered, seen %q", n, row.SeenRev)
	}
	complete()
	attempt := w.row(a).Attempt
	w.r.Drain(a.DID())
	w.until("the drain ends", func() bool { return w.row(a).State != store.StateDraining })
	row := w.row(a)
	if row.State != store.StatePending || row.SeenRev != a.Truth().Rev || row.Attempt != attempt+1 || w.store.Buffered(a.DID()) != 0 {
		t.Errorf("row is %s, seen %q, attempt %d after %d, %d buffered", row.State, row.SeenRev, row.Attempt, attempt, w.store.Buffered(a.DID()))
	}
	w.logs(a)
	w.until("Wake is called", w.woken)
}

// woken says that rows were enqueued for a fetch. That is said just after they are written.
func (w *world) woken() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wakes > 0
}

// active decides whether an account is shown; status says only why not.
func TestActiveDecides(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	for _, status := range []simnet.Status{"takendown", "deleted", "somethingnew"} {
		a.Announce(true, status)
	}
	w.put(a, "app.test.x/one", "1")
	w.pass()
	w.equal(a)
	if row := w.row(a); row.Status != store.StatusActive {
		t.Errorf("it is %s", row.Status)
	}
	a.Announce(false, "suspended")
	a.Announce(true, "suspended")
	w.pass()
	if row := w.row(a); row.Status != store.StatusActive || row.State != store.StatePending {
		t.Errorf("it is %s, %s", row.Status, row.State)
	}
	a.Announce(false, "") // and no word why
	w.pass()
	if row := w.row(a); row.Status != store.StatusInactive || row.Ordinal == 0 {
		t.Errorf("it is %s", row.Status)
	}
	w.logs(a, "account suspended", "account active", "account inactive")
}

// Commits of an inactive account are not applied, whatever source sends them; its records are
// listed when it returns.
func TestInactiveAccountsWrite(t *testing.T) {
	t.Parallel()
	for _, status := range []simnet.Status{simnet.Takendown, simnet.Suspended, simnet.Deactivated, simnet.Deleted} {
		t.Run(string(status), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.net.Accounts()[0]
			w.hold(a)
			w.skip()
			sent := w.net.RelayHost().Head()
			w.put(a, "app.test.x/one", "1")
			a.Sync()
			late := w.net.RelayHost().Messages(sent)
			w.skip()
			a.SetStatus(status)
			w.pass()
			before := w.row(a)
			w.hand(late...)
			row := w.row(a)
			if row.State != store.StateGone || row.Rev != before.Rev || row.Data != before.Data || row.Records != before.Records || row.SeenRev != a.Truth().Rev {
				t.Errorf("row is %s at %s with %d records, seen %q", row.State, row.Rev, row.Records, row.SeenRev)
			}
			if w.dir.lookups(a.DID()) != 0 {
				t.Error("looked up")
			}
			w.logs(a, "account "+string(status))
		})
	}
}
