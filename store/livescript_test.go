package store_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
)

const (
	firehose = "wss://relay.test"
	mirror   = "wss://mirror.test"
)

// happening is one event of a firehose, or a step of the backfill between two of them.
type happening struct {
	seq    int64 // of an event; 0 otherwise
	did    string
	path   string       // of a commit
	text   string       // of a commit; "" deletes
	status store.Status // of an account event
	kind   string       // commit, account, begin or end of a fetch, prune
}

func (h happening) rev() string { return storetest.Rev(int(h.seq)) }

// liveScript is a history of some repositories: some held from the start, some fetched while their
// commits come.
type liveScript struct {
	steps []happening
	dids  []string
}

func newLiveScript(rng *rand.Rand, repos, events int) *liveScript {
	l := &liveScript{}
	begun, status := map[string]bool{}, map[string]store.Status{}
	for n := range repos {
		did := storetest.DID(n + 1)
		l.dids = append(l.dids, did)
		if n%3 == 0 { // held before the first event
			l.steps = append(l.steps, happening{kind: "begin", did: did}, happening{kind: "end", did: did})
		}
	}
	for seq := int64(1); seq <= int64(events); {
		h := happening{did: l.dids[rng.IntN(repos)]}
		switch n := rng.IntN(24); {
		case status[h.did] == store.StatusDeleted:
			continue // nothing comes after it
		case n == 0:
			h.kind = "prune"
		case n < 4 && status[h.did] == store.StatusActive:
			h.kind = map[bool]string{false: "begin", true: "end"}[begun[h.did]]
			begun[h.did] = !begun[h.did]
		case n == 4 && rng.IntN(3) == 0 && h.did != l.dids[0]: // some account must continue
			h.kind, h.status = "account", store.StatusDeleted
		case n < 8:
			h.kind, h.status = "account", store.StatusDeactivated
			if status[h.did].Hidden() {
				h.status = store.StatusActive
			}
		default:
			h.kind, h.path = "commit", fmt.Sprintf("app.test.c%d/%d", rng.IntN(3), rng.IntN(6))
			if rng.IntN(8) == 0 {
				h.path = fmt.Sprint("no path ", rng.IntN(3))
			}
			if rng.IntN(4) > 0 {
				h.text = fmt.Sprint("text ", rng.IntN(20))
			}
		}
		if h.kind == "commit" || h.kind == "account" {
			h.seq = seq
			seq++
		}
		if h.kind == "account" {
			status[h.did] = h.status
		}
		l.steps = append(l.steps, h)
	}
	return l
}

// truth returns what did holds after the events up to seq, and the rev of the last commit.
func (l *liveScript) truth(did string, seq int64) (m storetest.Records, rev string) {
	m, rev = storetest.Records{"app.test.c0/first": storetest.Text(did)}, storetest.Rev(0)
	for _, h := range l.steps {
		if h.did != did || h.seq == 0 || h.seq > seq {
			continue
		}
		switch {
		case h.kind == "account" && h.status == store.StatusDeleted:
			return storetest.Records{}, ""
		case h.kind == "commit" && h.text == "":
			delete(m, h.path)
			rev = h.rev()
		case h.kind == "commit":
			m[h.path] = storetest.Text(h.text)
			rev = h.rev()
		}
	}
	return m, rev
}

// marks is a source's low watermark, as ingest keeps it.
type marks struct {
	mu   sync.Mutex
	done map[int64]bool
	mark int64
}

func newMarks(from int64) *marks { return &marks{done: map[int64]bool{}, mark: from} }

func (m *marks) finish(seq int64) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done[seq] = true
	for m.done[m.mark+1] {
		m.mark++
	}
	return m.mark
}

// liveRun plays a script on a store.
type liveRun struct {
	t       testing.TB
	s       *store.Store
	script  *liveScript
	at      *marks
	fetched map[string]copying
}

// copying is a fetch under way.
type copying struct {
	seq     int64 // the copy is the repository after this event
	attempt uint64
}

func (r *liveRun) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// event handles h as ingest does, in one batch with the cursors.
func (r *liveRun) event(h happening) {
	unlock := r.s.Lock(h.did)
	row, err := r.s.RepoOrNew(h.did)
	if err == nil && row.State == store.StateDraining {
		r.drain(&row)
	}
	r.must(err)
	b := r.s.NewBatch()
	if h.kind == "commit" {
		r.commit(b, &row, h)
	} else {
		r.account(b, &row, h)
	}
	b.SetCursor(firehose, func() int64 { return r.at.finish(h.seq) })
	b.SetCursor(mirror, func() int64 { return r.at.finish(h.seq) - 2 })
	wait, err := b.Commit()
	unlock()
	r.must(err)
	r.must(wait())
}

func (r *liveRun) commit(b *store.Batch, row *store.Repo, h happening) {
	switch {
	case h.rev() <= row.Rev:
		return
	case row.State == store.StateSynced:
		r.must(r.apply(b, row, h.rev(), h.path, h.text))
		b.ForgeRepo(row)
	case row.State == store.StatePending && r.s.Fetching(h.did):
		b.Buffer(row, h.rev(), []byte(h.path+"\x00"+h.text))
		b.ForgeRepo(row)
	default:
		if !row.Known() {
			row.State, row.Tracked, row.Pending.Priority = store.StatePending, store.ByNetwork, store.PriorityDiscovery
		}
		row.SeenRev = max(row.SeenRev, h.rev())
		b.ForgeRepo(row)
	}
}

func (r *liveRun) apply(b *store.Batch, row *store.Repo, rev, path, text string) error {
	op := store.Op{Path: []byte(path)}
	if text != "" {
		op.Record = storetest.Text(text)
		op.CID = repo.HashCID(op.Record)
		cid, err := r.s.RecordCID(row, op.Path)
		if err != nil {
			return err
		}
		op.New = cid == repo.CID{}
	}
	data := repo.HashCID([]byte(rev))
	err := b.Apply(row, true, rev, []store.Op{op})
	row.Rev, row.Data, row.Commit = rev, data, storetest.Commit(row.DID, rev, data)
	return err
}

func (r *liveRun) account(b *store.Batch, row *store.Repo, h happening) {
	if h.seq <= row.AccountTime {
		return
	}
	row.AccountTime, row.Status = h.seq, h.status
	row.State = store.StateGone
	if h.status == store.StatusDeleted {
		r.must(b.Wipe(row))
	}
	b.DropBuffer(row)
	b.Account(row)
	if h.status == store.StatusActive {
		if row.Ordinal != 0 {
			r.must(b.Relist(row))
		}
		row.State, row.Pending.Priority = store.StatePending, store.PriorityRetry
	}
	row.Attempt++
	b.ForgeRepo(row)
}

// drain applies the buffered commits, one in each batch; the last one makes the repository synced.
func (r *liveRun) drain(row *store.Repo) {
	type message struct{ rev, path, text string }
	var all []message
	r.must(r.s.BufferedCommits(row.DID, func(rev string, m []byte) error {
		for i, c := range m {
			if c == 0 {
				all = append(all, message{rev, string(m[:i]), string(m[i+1:])})
				return nil
			}
		}
		return errors.New("no message")
	}))
	for i, m := range all {
		b := r.s.NewBatch()
		b.Unbuffer(row, m.rev)
		if m.rev > row.Rev {
			r.must(r.apply(b, row, m.rev, m.path, m.text))
		}
		if i == len(all)-1 {
			r.settle(row)
		}
		b.ForgeRepo(row)
		r.must(b.CommitSync())
	}
}

// settle sets the state of a complete copy with nothing buffered.
func (r *liveRun) settle(row *store.Repo) {
	row.State = store.StateSynced
	if row.SeenRev > row.Rev {
		row.State, row.Pending.Priority = store.StatePending, store.PriorityRetry
		return
	}
	row.SeenRev = ""
}

func (r *liveRun) begin(did string, seq int64) {
	unlock := r.s.Lock(did)
	defer unlock()
	row, err := r.s.RepoOrNew(did)
	r.must(err)
	if row.Known() && row.State != store.StatePending {
		return
	}
	row.State, row.Tracked, row.Pending.Priority = store.StatePending, store.ByOperator, store.PriorityOperator
	row.Attempt++
	b := r.s.NewBatch()
	b.ForgeRepo(&row)
	r.must(b.CommitSync())
	r.s.BeginFetch(did)
	r.fetched[did] = copying{seq, row.Attempt}
}

// end completes the copy that was begun, as a first one or as a difference.
func (r *liveRun) end(did string) {
	unlock := r.s.Lock(did)
	f, begun := r.fetched[did]
	delete(r.fetched, did)
	row, err := r.s.RepoOrNew(did)
	r.must(err)
	if !begun {
		unlock()
		return
	}
	if row.State != store.StatePending || row.Attempt != f.attempt { // it changed meanwhile
		b := r.s.NewBatch()
		b.DropBuffer(&row)
		b.ForgeRepo(&row)
		r.s.EndFetch(did)
		r.must(b.CommitSync())
		unlock()
		return
	}
	m, rev := r.script.truth(did, f.seq)
	if row.Ordinal != 0 {
		r.difference(&row, m, rev)
		unlock()
		return
	}
	im := m.Import(row, rev)
	whole := im.Complete
	im.Complete = func(b *store.Batch, row *store.Repo) {
		whole(b, row)
		r.complete(row)
	}
	im.Done = func(_ store.Repo, err error) { // FlushImports returns a failure too
		if errors.Is(err, store.ErrStale) {
			r.t.Error(err)
		}
	}
	unlock()
	r.must(r.s.Import(r.t.Context(), im))
	r.must(r.s.FlushImports())
}

// complete ends a fetch in the batch that completes it.
func (r *liveRun) complete(row *store.Repo) {
	if r.settle(row); r.s.Buffered(row.DID) > 0 {
		row.State = store.StateDraining
	}
	r.s.EndFetch(row.DID)
}

func (r *liveRun) difference(row *store.Repo, m storetest.Records, rev string) {
	var ops []store.Op
	rows, err := r.s.Rows(row.Ordinal)
	r.must(err)
	for rows.Next() {
		if p := string(rows.Row().Path); m[p] == nil {
			ops = append(ops, store.Op{Path: []byte(p)})
		}
	}
	r.must(rows.Close())
	for _, p := range m.Paths() {
		ops = append(ops, store.Op{Path: []byte(p), CID: repo.HashCID(m[p]), Record: m[p]})
	}
	b := r.s.NewBatch()
	if rev > row.Rev {
		r.must(b.Apply(row, false, rev, ops))
		row.Rev, row.Data = rev, repo.HashCID([]byte(rev))
		row.Commit = storetest.Commit(row.DID, rev, row.Data)
	}
	r.complete(row)
	b.ForgeRepo(row)
	r.must(b.CommitSync())
}

// play runs the steps after an event.
func (r *liveRun) play(after int64, last int64) {
	seq := after
	for _, h := range r.script.steps {
		switch {
		case h.seq > 0 && h.seq <= after:
		case h.seq > 0:
			r.event(h)
			seq = h.seq
		case h.kind == "begin":
			r.begin(h.did, seq)
		case h.kind == "end":
			r.end(h.did)
		case h.kind == "prune":
			prune(r.t, r.s, time.Unix(0, 0))
		}
		if seq == last {
			return
		}
	}
}

// finish brings all repositories to the end of the script.
func (r *liveRun) finish() {
	for _, did := range r.script.dids {
		r.end(did) // what was begun
		for range 3 {
			row, err := r.s.RepoOrNew(did)
			r.must(err)
			if row.State == store.StateDraining {
				unlock := r.s.Lock(did)
				r.drain(&row)
				unlock()
			}
			if row.State == store.StatePending {
				r.begin(did, 1<<40)
				r.end(did)
			}
		}
	}
}

// equal compares the stored records and the log with the truth.
func (r *liveRun) equal() {
	r.t.Helper()
	want := map[string]storetest.Records{}
	for _, did := range r.script.dids {
		row, err := r.s.RepoOrNew(did)
		r.must(err)
		if row.Ordinal == 0 {
			continue
		}
		want[did], _ = r.script.truth(did, 1<<40)
		if row.Status.Hidden() { // kept as it was when it was hidden
			want[did] = held(r.t, r.s)[did]
		}
	}
	want = visible(want)
	if d := cmp.Diff(want, held(r.t, r.s)); d != "" {
		r.t.Errorf("store (-want +got):\n%s", d)
	}
	maps.DeleteFunc(want, func(did string, _ storetest.Records) bool { return row(r.t, r.s, did).Status.Hidden() })
	if d := cmp.Diff(notEmpty(want), notEmpty(fold(r.t, r.s, 5))); d != "" {
		r.t.Errorf("log folded (-want +got):\n%s", d)
	}
}

// covered checks that nothing below the cursors is missing: each commit is applied, buffered or
// remembered by its rev, each account event by its time.
func (r *liveRun) covered() (cursor int64) {
	r.t.Helper()
	for _, source := range []string{mirror, firehose} {
		seq, ok, err := r.s.Cursor(source)
		r.must(err)
		if cursor = seq; !ok {
			cursor = 0
		}
		for _, h := range r.script.steps {
			if h.seq == 0 || h.seq > cursor {
				continue
			}
			row, err := r.s.RepoOrNew(h.did)
			r.must(err)
			switch {
			case h.kind == "account" && row.AccountTime >= h.seq:
			case h.kind == "commit" && (row.Rev >= h.rev() || row.SeenRev >= h.rev() || row.Status == store.StatusDeleted):
			case h.kind == "commit" && r.bufferedUpTo(h.did) >= h.rev():
			default:
				r.t.Errorf("the cursor of %s is %d, and event %d of %s (%s) is not there: %s at %q, %q was seen", source, cursor,
					h.seq, h.did, h.kind, row.State, row.Rev, row.SeenRev)
			}
		}
	}
	return cursor
}

func (r *liveRun) bufferedUpTo(did string) (top string) {
	r.must(r.s.BufferedCommits(did, func(rev string, _ []byte) error { top = rev; return nil }))
	return top
}
