package ingest

import (
	"context"
	"net"
	"time"

	"cistern/ingest/frame"
	"cistern/ingest/identity"
	"cistern/store"
)

// Event is an event that a source handed to its shard.
type Event struct {
	r *Runner
	e *event
}

// Frame is what the event tells.
func (e Event) Frame() *frame.Frame { return &e.e.frame }

// Message is what it came in.
func (e Event) Message() []byte { return e.e.message }

// Source is the key of its source.
func (e Event) Source() string { return e.e.src.key() }

// PDSHost is that of its source.
func (e Event) PDSHost() string { return e.e.src.pdsHost() }

// Refuse counts it as refused.
func (e Event) Refuse() { e.e.src.refused() }

// Skip is what a shard does with an event that writes nothing.
func (e Event) Skip() {
	e.e.src.tracker.finish(e.e.seq)
	e.r.release(e.e)
}

// Write is what a shard does with an event that it writes.
func (e Event) Write() error {
	b := e.r.opts.Store.NewBatch()
	src, number := e.e.src, e.e.seq
	b.SetCursor(src.key(), func() int64 { return src.tracker.finish(number) })
	e.r.release(e.e)
	return b.CommitSync()
}

// SetSubmit has f take the events instead of the shards.
func SetSubmit(r *Runner, f func(ctx context.Context, e Event) error) {
	r.sources.submit = func(ctx context.Context, e *event) error { return f(ctx, Event{r, e}) }
}

// SetDial has sources connect by f.
func SetDial(r *Runner, f func(ctx context.Context, network, address string) (net.Conn, error)) {
	r.sources.dial = f
}

// RunSources runs the sources alone.
func RunSources(ctx context.Context, r *Runner) error { return r.runSources(ctx) }

// SetStuckAfter has a source stuck inside a message lose its cursor after d.
func SetStuckAfter(r *Runner, d time.Duration) { r.sources.stuckAfter = d }

// DirectNeeded is when the one direct source was needed last.
func DirectNeeded(r *Runner) (at time.Time) {
	d := &r.sources.direct
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, at = range d.needed {
	}
	return at
}

// SaveAround saves cursors and progress, and calls during before what it writes is committed.
func SaveAround(r *Runner, during func()) error {
	b := r.opts.Store.NewBatch()
	_, unlock, err := r.sources.gather(b)
	if err != nil {
		unlock()
		return err
	}
	during()
	err = b.CommitSync()
	unlock()
	return err
}

// ReadTo has a source, which is not running, read up to a seq and a time.
func ReadTo(r *Runner, url string, seq int64, at time.Time) {
	src := r.sources.get(url)
	src.restart(seq)
	src.gaps.clock.Store(at.UnixMicro())
}

// Missed has the comparison of a source's listing requested, or owed.
func Missed(r *Runner, url string) error {
	return r.sources.reconcile(r.sources.get(url), false)
}

// ReadUntil is the time up to which a source counts as read.
func ReadUntil(r *Runner, url string) int64 { return r.sources.get(url).gaps.clock.Load() }

// Direct decides about one direct source, beside a relay.
type Direct struct {
	d          *direct
	src, relay *source
}

// NewDirect follows a host directly from now on.
func NewDirect(r *Runner, now time.Time) Direct {
	d := Direct{
		d:     &direct{applied: map[string]appliedEvent{}, needed: map[*source]time.Time{}},
		src:   newSource(r.sources, store.Source{URL: "wss://pds.test", PDS: true}),
		relay: newSource(r.sources, store.Source{URL: "wss://relay.test"}),
	}
	d.src.direct.Store(true)
	d.d.begin(d.src, now)
	return d
}

// Host has an event of the host applied, and Relay has the relay send one, which is known already
// or invalid.
func (d Direct) Host(did string, k frame.Kind, now time.Time) {
	d.d.note(&event{src: d.src, frame: frame.Frame{DID: did, Kind: k}}, outcomeApplied, now)
}

func (d Direct) Relay(did string, k frame.Kind, valid bool, now time.Time) {
	o := outcomeSkipped
	if !valid {
		o = outcomeRejected
	}
	d.d.note(&event{src: d.relay, frame: frame.Frame{DID: did, Kind: k}}, o, now)
}

// Superfluous reports whether the host is to be followed no longer.
func (d Direct) Superfluous(now time.Time) bool { return len(d.d.superfluous(now)) > 0 }

// Queued is what messages take of Options.QueueBytes.
func Queued(r *Runner) int64 { return r.sources.queued.Load() }

// HeldSources returns the size of the set, including the sources being removed.
func HeldSources(r *Runner) int { return len(r.sources.all()) }

// Tracker is the tracker of one source.
type Tracker struct{ t *tracker }

// NewTracker makes a tracker behind a cursor.
func NewTracker(cursor int64) Tracker { return Tracker{newTracker(cursor)} }

// Begin and the others are the tracker's own.
func (t Tracker) Begin(seq int64) (int64, bool)    { return t.t.begin(seq) }
func (t Tracker) Finish(numbers ...int64) int64    { return t.t.finish(numbers...) }
func (t Tracker) Mark() int64                      { return t.t.mark() }
func (t Tracker) Last() int64                      { return t.t.last() }
func (t Tracker) Waiting() int                     { return t.t.waiting() }
func (t Tracker) Reset(cursor int64)               { t.t.reset(cursor) }
func (t Tracker) Size() int                        { return len(t.t.ring) }
func Subscribe(source string, cursor int64) string { return subscribeURL(source, cursor) }

// HostOf is the host of a normalised address.
func HostOf(source string) string { return identity.HostOf(source) }

// Budget is that of refetches.
type Budget struct{ b *budget }

// NewBudget makes a budget.
func NewBudget(base time.Duration) Budget { return Budget{newBudget(base)} }

// Spend is the budget's.
func (b Budget) Spend(row *store.Repo, host string, now time.Time) time.Time {
	return b.b.spend(row, host, now)
}

// Hosts is how many hosts it remembers.
func (b Budget) Hosts() int { return len(b.b.hosts.byKey) }

// RefetchHostsMax and the others are limits.
const (
	RefetchHostsMax = refetchHostsMax
	RefetchBurst    = refetchBurst
	StraysMax       = straysMax
	StuckMax        = stuckMax
	DenseMin        = denseMin
	HeardWithin     = heardWithin
	DirectFor       = directFor
	UnheardMax      = unheardMax
	GapTime         = gapTime
	GapTimeDense    = gapTimeDense
	SourcesMax      = sourcesMax
	DiscardBytesMax = discardBytesMax
	URLBytesMax     = urlBytesMax
)
