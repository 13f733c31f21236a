package ingest_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"
)

// body is that of a message, by the names of its fields.
type body map[string]any

// altered is a message with another body.
func altered(t testing.TB, message []byte, change func(b body)) []byte {
	t.Helper()
	var head, fields map[string]any
	rest, err := cbor.UnmarshalFirst(message, &head)
	if err == nil {
		err = cbor.Unmarshal(rest, &fields) // links stay tags
	}
	if err != nil {
		t.Fatal(err)
	}
	change(fields)
	return encode(head, map[string]any(fields))
}

func (b body) op(i int) map[any]any { return b["ops"].([]any)[i].(map[any]any) }

// legacy leaves out what hosts older than sync v1.1 leave out.
func (b body) legacy() {
	delete(b, "prevData")
	for i := range b["ops"].([]any) {
		delete(b.op(i), "prev")
	}
}

// next is the one message that the relay has for an account since.
func (w *world) next(kind string) []byte {
	w.t.Helper()
	var found [][]byte
	for _, m := range w.net.RelayHost().Messages(w.sent) {
		if bytes.Contains(m[:40], []byte(kind)) {
			found = append(found, m)
		}
	}
	if len(found) != 1 {
		w.t.Fatalf("%d messages %s", len(found), kind)
	}
	w.skip()
	return found[0]
}

func (w *world) hand(messages ...[]byte) {
	w.t.Helper()
	for _, m := range messages {
		if err := w.feed.Send(w.t.Context(), m); err != nil {
			w.t.Fatal(err)
		}
	}
	w.settle()
}

// The envelope of a commit has no signature. It is believed as far as the tree proves it.
func TestEnvelopesLie(t *testing.T) {
	t.Parallel()
	fewer := func(b body) { b["ops"] = b["ops"].([]any)[:1] }
	for _, c := range []struct {
		name    string
		change  func(b body)
		state   store.State // synced: nothing is to be fetched
		applied bool
		reason  string // for which it is rejected
	}{
		{name: "nothing", change: func(body) {}, state: store.StateSynced, applied: true},
		{name: "an operation is not told of", change: fewer, state: store.StatePending},
		{name: "nor of what was before", change: func(b body) { b.legacy(); fewer(b) }, state: store.StatePending},
		{name: "nor of a rev", change: func(b body) { b.legacy(); fewer(b); b["since"] = nil }, state: store.StatePending},
		{name: "no operation is told of", change: func(b body) { b["ops"] = []any{} }, state: store.StatePending},
		{name: "another tree before", change: func(b body) { b["prevData"] = b.op(1)["cid"] }, state: store.StatePending},
		{name: "another record", change: func(b body) { b.op(1)["cid"] = b.op(0)["cid"] }, state: store.StatePending, reason: "tree"},
		{name: "another predecessor", change: func(b body) { b.op(0)["prev"] = b.op(1)["cid"] }, state: store.StatePending},
		{name: "a delete of what was written", change: func(b body) { b.op(1)["action"], b.op(1)["cid"] = "delete", nil }, state: store.StatePending},
		{name: "a create that was an update", change: func(b body) { b.op(0)["action"] = "create"; delete(b.op(0), "prev") }, state: store.StatePending},
		// A host older than sync v1.1 says what it knows, and it is right.
		{name: "nothing of before", change: func(b body) { b.legacy(); b["since"] = nil }, state: store.StateSynced, applied: true},
		{name: "since is missing and prevData is not", change: func(b body) { b["since"] = nil }, state: store.StateSynced, applied: true},
		{name: "a rev that is none", change: func(b body) { b["rev"] = "3jui7kd2z2y2" }, state: store.StateSynced, reason: "rev"},
		{name: "the rev of another commit", change: func(b body) { b["rev"] = b["rev"].(string)[:12] + "3" }, state: store.StatePending, reason: "envelope"},
		{name: "a rev to come", change: func(b body) { b["rev"] = "3mzzzzzzzzzz2" }, state: store.StateSynced, reason: "future"}, // of 2026-12
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.net.Accounts()[0]
			w.put(a, "app.test.x/one", "1")
			w.hold(a)
			w.skip()
			before, held := w.row(a), w.held(w.row(a))
			post := func(text string) []byte { return simnet.EncodeRecord(simnet.Post(text)) }
			commit, err := a.Commit(simnet.Write{Path: "app.test.x/one", Record: post("2")}, simnet.Write{Path: "app.test.x/two", Record: post("3")})
			if err != nil {
				t.Fatal(err)
			}
			w.hand(altered(t, w.next("#commit"), c.change))
			row := w.row(a)
			if c.applied {
				w.equal(a)
				w.logs(a, "update app.test.x/one", "create app.test.x/two")
				return
			}
			if row.State != c.state || row.Rev != before.Rev || row.Data != before.Data {
				t.Errorf("row is %s at %s, want %s at %s", row.State, row.Rev, c.state, before.Rev)
			}
			if c.state == store.StatePending && (row.SeenRev < commit.Rev || row.Recheck != (c.reason != "")) {
				t.Errorf("seen %q, recheck %t", row.SeenRev, row.Recheck)
			}
			if c.reason != "" && w.count("rejected_total", c.reason) != 1 {
				t.Errorf("it was not rejected for its %s", c.reason)
			}
			if diff := cmp.Diff(held, w.held(row)); diff != "" {
				t.Errorf("records (-before +after):\n%s", diff)
			}
			w.logs(a)
		})
	}
}

// The envelope of a #sync has no signature either.
func TestSyncsLie(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(b body, own, other *simnet.Account)
		reason string
	}{
		{"the commit is of another DID", func(b body, _, other *simnet.Account) { b["did"] = other.DID() }, "envelope"},
		{"the commit is of another rev", func(b body, own, _ *simnet.Account) { b["rev"] = own.NextTID() }, "envelope"},
		{"an invalid signature", func(b body, _, _ *simnet.Account) {
			car := b["blocks"].([]byte)
			span := simnet.Spans(car)[0]
			commit := slices.Clone(car[span.Data:span.End])
			commit[bytes.Index(commit, []byte("\x63sig\x58\x40"))+20] ^= 1
			b["blocks"] = proofCAR(commit)
		}, "signature"},
		{"no commit", func(b body, _, _ *simnet.Account) { b["blocks"] = proofCAR([]byte{0xa0}) }, "commit"},
		{"no blocks", func(b body, _, _ *simnet.Account) { b["blocks"] = []byte{} }, "car"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a, b := w.net.Accounts()[0], w.net.Accounts()[1]
			w.hold(a, b)
			w.put(a, "app.test.x/one", "1")
			for a.Truth().Rev <= b.Truth().Rev { // of the one that it names
				w.put(a, "app.test.x/one", "1")
			}
			w.skip()
			before := map[*simnet.Account]store.Repo{a: w.row(a), b: w.row(b)}
			a.Sync()
			w.hand(altered(t, w.next("#sync"), func(fields body) { c.change(fields, a, b) }))
			for _, account := range []*simnet.Account{a, b} {
				row := w.row(account)
				if row.Rev != before[account].Rev || row.Data != before[account].Data || row.State == store.StatePending && !row.Recheck {
					t.Errorf("row is %s at %s, recheck %t", row.State, row.Rev, row.Recheck)
				}
			}
			if n := w.count("rejected_total", c.reason); n != 1 {
				t.Errorf("%d were rejected for their %s, want 1", n, c.reason)
			}
			if n := w.count("refetches_total", "now"); n != 1 {
				t.Errorf("%d questions, want 1", n)
			}
		})
	}
}

// However many relays say that a repository moved, it is fetched once, and what is older says
// nothing.
func TestSyncOfManyRelays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	a.Sync()
	old := w.next("#sync")
	w.put(a, "app.test.x/one", "1")
	w.skip()
	a.Sync()
	sync := w.next("#sync")
	var others []func()
	for _, url := range []string{"ws://b.test", "ws://c.test", "ws://d.test"} {
		f := w.newFeed(url, false)
		others = append(others, func() {
			if err := f.Send(t.Context(), sync); err != nil {
				t.Error(err)
			}
			w.until("it is handled", f.Idle)
		})
	}
	w.hand(sync)
	others[0]()
	row := w.row(a)
	if row.State != store.StatePending || row.SeenRev != a.Truth().Rev || row.Attempt != 1 {
		t.Fatalf("row is %s, seen %q, attempt %d", row.State, row.SeenRev, row.Attempt)
	}
	w.begin(a)
	others[1]() // while it is fetched
	truth := a.Truth()
	set(w, a, func(r *store.Repo) {
		r.State, r.Rev, r.Data, r.SeenRev = store.StateSynced, truth.Rev, truth.Data, ""
		r.Commit = storetest.Commit(r.DID, truth.Rev, truth.Data)
	})
	w.store.EndFetch(a.DID())
	others[2]() // and after
	if f := w.newFeed("ws://e.test", false); f.Send(t.Context(), old) != nil {
		t.Error("not sent")
	} else {
		w.until("it is handled", f.Idle)
	}
	if row := w.row(a); row.State != store.StateSynced || row.Rev != a.Truth().Rev || row.SeenRev != "" {
		t.Errorf("row is %s at %s, seen %q", row.State, row.Rev, row.SeenRev)
	}
	if n := w.count("refetches_total", "now") + w.count("refetches_total", "later"); n != 1 {
		t.Errorf("%d fetches, want 1", n)
	}
}

// Without the nodes beside, inversion is impossible. A host older than sync v1.1 is believed then as
// far as the nodes which it must have go: that what was written is there, and what was deleted is
// not. Of a host that names the tree before, the whole proof is wanted.
func TestProofsLeftOut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(b body, w *world, a *simnet.Account)
		reason string // "": it is applied
	}{
		{"nothing else", func(body, *world, *simnet.Account) {}, ""},
		{"a delete that never was", func(b body, _ *world, a *simnet.Account) {
			b["ops"] = append(b["ops"].([]any), map[string]any{"action": "delete", "path": a.Paths()[3], "cid": nil})
		}, "proof"},
		{"and the tree before is named", func(b body, w *world, a *simnet.Account) {
			b["prevData"] = cbor.Tag{Number: 42, Content: append([]byte{0}, w.row(a).Data.AppendBytes(nil)...)}
		}, "proof"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.net.Accounts()[0]
			for i := range 300 {
				w.put(a, fmt.Sprintf("app.test.x/%03d", i), "1")
			}
			w.hold(a)
			w.skip()
			w.net.RelayHost().InjectStream(simnet.StreamFault{Kind: simnet.StreamNoPrevData, DID: a.DID(), Bare: true})
			// it has been fetched in this hour
			set(w, a, func(r *store.Repo) { r.Broken = w.clock().Unix() })
			before := w.row(a)
			for i := range 40 { // some of them can do without the nodes that are missing
				change := func(body) {}
				if i >= 20 {
					change = func(b body) { c.change(b, w, a) }
				}
				writes := []simnet.Write{{Path: fmt.Sprintf("app.test.x/%03d", 7*i)},
					{Path: fmt.Sprintf("app.test.x/%03da", 299-7*i), Record: simnet.EncodeRecord(simnet.Post("new"))}}
				if _, err := a.Commit(writes...); err != nil {
					t.Fatal(err)
				}
				w.hand(altered(t, w.next("#commit"), change))
				if row := w.row(a); row.State != store.StateSynced {
					if c.reason == "" || i < 20 {
						t.Fatalf("commit %d: row is %s", i, row.State)
					}
					if row.State != store.StatePending || !row.Recheck || w.count("rejected_total", c.reason)+w.count("rejected_total", "tree") != 1 {
						t.Errorf("row is %s, recheck %t", row.State, row.Recheck)
					}
					return
				}
				w.equal(a)
			}
			if c.reason != "" {
				t.Error("it was never refused")
			} else if row := w.row(a); row.Verified != store.VerifiedOps || row.Breaks != 0 || before.Verified == row.Verified {
				t.Errorf("verified %s, %d breaks", row.Verified, row.Breaks)
			}
		})
	}
}
