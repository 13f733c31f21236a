package main

import (
	"fmt"
	"slices"

	wire "cistern/ingest/frame"
	"cistern/ingest/identity"
	"cistern/store"
	"cistern/store/storetest"
)

// checkOpened checks the state that a crash left.
func (l *life) checkOpened() {
	if l.from.depth == 0 {
		return
	}
	w, s := l.world, l.store
	storetest.Check(w.t, s)
	l.kept()
	if l.exact() {
		l.covered()
	}
	draining, err := s.Draining()
	if err != nil {
		w.t.Error(err)
	}
	if len(draining) > 0 {
		w.met.add("draining", 1)
	}
	for _, a := range w.net.Accounts() {
		if did := a.DID(); s.Buffered(did) > 0 && !slices.Contains(draining, did) {
			w.t.Errorf("%s: commits of %s are buffered and will never be drained", l.from.describe(), did)
		}
	}
	if s.Head() == l.from.head {
		w.met.add("not synced", 1)
	}
}

// kept checks that every event published before the crash still is.
func (l *life) kept() {
	t, s, c := l.world.t, l.store, l.from
	t.Helper()
	if s.Head() < c.head {
		t.Errorf("%s: the head is %d", c.describe(), s.Head())
	}
	now, err := toldOf(s)
	if err != nil {
		t.Errorf("%s: %v", c.describe(), err)
		return
	}
	deleted := map[string]uint64{}
	for id, e := range now {
		if e.deletes {
			deleted[e.did] = max(deleted[e.did], id)
		}
	}
	wiped := false
	for id, e := range c.told {
		got, ok := now[id]
		if ok {
			if got.text != e.text {
				t.Errorf("%s: event %d was\n%s and is\n%s", c.describe(), id, e.text, got.text)
			}
			continue
		}
		row, err := s.Repo(e.did)
		if !e.record || err != nil || !row.Status.Hidden() && deleted[e.did] < id {
			t.Errorf("%s: event %d is gone: %s (%v)", c.describe(), id, e.text, err)
		}
		wiped = wiped || deleted[e.did] > id
	}
	if wiped {
		l.world.met.add("wiped", 1)
	}
}

// covered checks that the store reflects every message that its cursors say it has.
func (l *life) covered() {
	w := l.world
	said := map[accountEvent]map[uint32]bool{} // by the sources that sent it
	for i, h := range l.streams() {
		source := store.SourceID(identity.HostOf(l.sources()[i].URL))
		for _, f := range framesOf(h.Messages(w.starts[i])) {
			ev := accountEvent{f.DID, f.Time}
			if f.Kind == wire.KindAccount && said[ev] == nil {
				said[ev] = map[uint32]bool{}
			}
			if f.Kind == wire.KindAccount {
				said[ev][source] = true
			}
		}
	}
	for i, h := range l.streams() {
		url := l.sources()[i].URL
		cursor, ok, err := l.store.Cursor(url)
		if err != nil || !ok || cursor < w.starts[i] {
			w.t.Errorf("%s: cursor of %s: %d, %v, %v", l.from.describe(), url, cursor, ok, err)
			continue
		}
		all := framesOf(h.Messages(w.starts[i]))
		w.honest(all)
		newest, known := map[string]int64{}, map[string]bool{}
		for _, f := range all {
			if f.Kind == wire.KindIdentity {
				newest[f.DID] = f.Seq
			}
		}
		for _, f := range all {
			switch {
			case f.Seq > cursor:
			case f.Kind == wire.KindIdentity && (!known[f.DID] || newest[f.DID] > cursor): // one that follows makes it needless
			default:
				known[f.DID] = true
				if err := l.reflects(store.SourceID(identity.HostOf(url)), &f, said); err != nil {
					w.t.Errorf("%s: %s has cursor %d, which covers %s %s of %s at %d: %v", l.from.describe(), url, cursor, f.Kind, f.Rev, f.DID, f.Seq, err)
				}
			}
		}
	}
}

// accountEvent is an #account event as its row remembers it.
type accountEvent struct {
	did string
	at  int64
}

// framesOf returns the frames that are about accounts.
func framesOf(messages [][]byte) (out []wire.Frame) {
	for _, m := range messages {
		var f wire.Frame
		if f.Decode(m) == nil && f.DID != "" && f.Kind != wire.KindUnknown {
			out = append(out, f)
		}
	}
	return out
}

// honest records the revs between those that were seen: a true commit names the one before it.
func (w *crashWorld) honest(frames []wire.Frame) {
	for _, f := range slices.Backward(frames) {
		if f.Kind == wire.KindCommit && f.Since != "" && w.revs[f.DID][f.Rev] {
			w.seen(f.DID, f.Since)
		}
	}
}

// reflects returns an error unless the store reflects a frame of a source: it holds the change,
// buffers it, or has marked the repository to be fetched.
func (l *life) reflects(
	source uint32, f *wire.Frame, said map[accountEvent]map[uint32]bool,
) error {
	row, err := l.store.RepoOrNew(f.DID)
	if err != nil {
		return err
	}
	switch f.Kind {
	case wire.KindCommit, wire.KindSync:
		top := max(row.Rev, row.SeenRev)
		err := l.store.BufferedCommits(f.DID, func(rev string, _ []byte) error { top = max(top, rev); return nil })
		if err != nil || top < f.Rev && l.world.revs[f.DID][f.Rev] && row.Status != store.StatusDeleted {
			return fmt.Errorf("%s at %q, seen %q, with buffer %q (%v)", row.State, row.Rev, row.SeenRev, top, err)
		}
	case wire.KindAccount:
		if row.HiddenByRelay() && f.Active && row.AccountSource != source {
			return nil // what another source says does not undo a relay's own decision
		}
		// The event of another source may be older and count all the same: its clock is another. The
		// answer of a host has the source forgotten, and not the time.
		another := row.AccountSource != 0 && row.AccountSource != source
		if row.AccountSource == 0 {
			by := said[accountEvent{f.DID, row.AccountTime}]
			another = len(by) > 1 || len(by) == 1 && !by[source]
		}
		if row.AccountTime < f.Time && !another {
			return fmt.Errorf("the account is %s by a %s as of %d (source %d of %d), not %d", row.Status,
				row.Origin, row.AccountTime, row.AccountSource, source, f.Time)
		}
	case wire.KindIdentity:
		if row.IdentityTime < f.Time {
			return fmt.Errorf("the identity is as of %d, not %d", row.IdentityTime, f.Time)
		}
	}
	return nil
}
