package backfill

import (
	"context"
	"net/url"
	"strings"
	"time"

	"cistern/backfill/pace"
	"cistern/ingest/identity"
	"cistern/store"

	"golang.org/x/time/rate"
)

// lookups bound the lookups of DIDs in the directory that all DIDs share, and the moves of rows to
// the queues of the hosts that lookups find. dispatcher.mu guards them, and every method is called
// with it held.
type lookups struct {
	limiter pace.Limiter
	running int           // lookups of repositories with an unknown host
	moves   *rate.Limiter // limits the moves of rows
}

func newLookups(concurrency int) lookups {
	l := lookups{moves: rate.NewLimiter(movesPerSecond, movesPerSecond)}
	l.limiter.Configure(pace.Limits{Max: concurrency}, false)
	l.limiter.Trust()
	return l
}

// begin counts a lookup as running until end.
func (l *lookups) begin(now time.Time) pace.Permit {
	l.running++
	return l.limiter.Begin(pace.Fetch, now)
}

func (l *lookups) end() {
	l.running--
	l.limiter.End()
}

// moved records that a row is moved. Rows moved beyond the limit are a debt.
func (l *lookups) moved(now time.Time) { l.moves.ReserveN(now, 1) }

// moveDebt returns how long until a row may be moved, 0 if a row may be moved now.
func (l *lookups) moveDebt(now time.Time) time.Duration {
	missing := 1 - l.moves.TokensAt(now)
	if missing <= 0 {
		return 0
	}
	return time.Duration(missing / movesPerSecond * float64(time.Second))
}

// place acquires a permit of a host. If no permit is free, either the repository waits in memory
// and the task is passed on, or the task moves the repository to the host's stored queue and ends.
func (t *task) place(host string) (outcome, error) {
	id, err := t.r.hosts.HostID(host)
	if err != nil {
		return outcome{}, err
	}
	t.doc.hostID = id
	passed, ok := t.r.dispatcher.acquire(t.claim, id, t.doc.remember(t.it))
	if t.passed = passed; passed {
		t.path.Text("result", "waits") // a later task goes on, with a trace of its own
		t.path.End()
	}
	if ok {
		return outcome{}, nil
	}
	return t.move()
}

// move writes the repository to the queue of its host, with its identity, and ends the task.
func (t *task) move() (outcome, error) {
	row, err := t.win.update(func(b *store.Batch, row *store.Repo) error {
		t.doc.hostID = t.doc.hostOr(row)
		row.Pending = store.PendingKey{Host: t.doc.hostID, Priority: row.Pending.Priority}
		t.doc.learn(b, row)
		return nil
	})
	if err != nil {
		return outcome{}, err
	}
	return ended(row, ""), nil
}

// identify resolves the host and the key. The identity may be outdated if it comes from a lookup
// before the repository waited, or from the cache of the directory after the row was moved to this
// queue. If the host contradicts it, copy calls refresh.
func (t *task) identify(ctx context.Context) error {
	if t.it.ident != nil {
		t.doc.recall(&t.it)
		return nil
	}
	row := &t.win.row
	if moved := row.Ordinal == 0 && row.Key != "" && row.Retry.Count == 0; moved {
		return t.doc.cached(ctx, row)
	}
	return t.refresh(ctx)
}

// refresh reads the document again, bypassing the cache of the directory.
func (t *task) refresh(ctx context.Context) error {
	if err := t.doc.refresh(ctx, &t.win.row); err != nil {
		return err
	}
	if sharesDirectory(t.it.did) {
		// The directory works again: earlier failures must not slow lookups any longer.
		t.r.dispatcher.noteLookup(t.claim, pace.Outcome{Answered: true})
	}
	return nil
}

const didWeb = "did:web:"

// sharesDirectory reports whether the document of a DID is in the directory that all did:plc share.
// The document of a did:web is on a host of its own.
func sharesDirectory(did string) bool { return !strings.HasPrefix(did, didWeb) }

// webAuthority returns the host that serves the document of a did:web.
func webAuthority(did string) (string, bool) {
	name, ok := strings.CutPrefix(did, didWeb)
	if !ok {
		return "", false
	}
	name, err := url.PathUnescape(name)
	if err != nil {
		return "", false // cannot be resolved either
	}
	origin, err := identity.ParseOrigin(name)
	return identity.HostOf(origin), err == nil
}
