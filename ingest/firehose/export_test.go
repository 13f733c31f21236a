package firehose

import (
	"context"
	"net"
	"time"

	"cistern/ingest/frame"
	"cistern/ingest/identity"
	"cistern/store"
)

// Skip is what a shard does with an event that writes nothing.
func (e *Event) Skip() {
	e.Source.Finish(e.Number)
	e.Release()
}

// Write is what a shard does with an event that it writes.
func (e *Event) Write() error {
	src, number := e.Source, e.Number
	b := src.set.store.NewBatch()
	b.SetCursor(src.URL(), func() int64 { return src.Finish(number) })
	e.Release()
	return b.CommitSync()
}

// SetDial has sources connect by f.
func SetDial(s *Sources, f func(ctx context.Context, network, address string) (net.Conn, error)) {
	s.dial = f
}

// SetStuckAfter has a source stuck inside a message lose its cursor after d.
func SetStuckAfter(s *Sources, d time.Duration) { s.stuckAfter = d }

// SaveAround saves cursors and progress, and calls during before what it writes is committed.
func SaveAround(s *Sources, during func()) error {
	b := s.opts.Store.NewBatch()
	_, unlock, err := s.gather(b)
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
func ReadTo(s *Sources, url string, seq int64, at time.Time) {
	src := s.get(url)
	src.restart(seq)
	src.gaps.clock.Store(at.UnixMicro())
}

// Missed has the comparison of a source's listing requested, or owed.
func Missed(s *Sources, url string) error {
	return s.reconcile(s.get(url), false)
}

// ReadUntil is the time up to which a source counts as read.
func ReadUntil(s *Sources, url string) int64 { return s.get(url).gaps.clock.Load() }

// Direct decides about one direct source, beside a relay.
type Direct struct {
	d          *direct
	src, relay *Source
}

// NewDirect follows a host directly from now on.
func NewDirect(s *Sources, now time.Time) Direct {
	d := Direct{
		d:     &direct{applied: map[string]appliedEvent{}, needed: map[*Source]time.Time{}},
		src:   newSource(s, store.Source{URL: "wss://pds.test", PDS: true}),
		relay: newSource(s, store.Source{URL: "wss://relay.test"}),
	}
	d.src.direct.Store(true)
	d.d.begin(d.src, now)
	return d
}

// Host has an event of the host applied, and Relay has the relay send one, which is known already
// or invalid.
func (d Direct) Host(did string, k frame.Kind, now time.Time) {
	d.d.note(&Event{Source: d.src, Frame: frame.Frame{DID: did, Kind: k}}, true, now)
}

func (d Direct) Relay(did string, k frame.Kind, valid bool, now time.Time) {
	if valid {
		d.d.note(&Event{Source: d.relay, Frame: frame.Frame{DID: did, Kind: k}}, false, now)
	}
}

// Superfluous reports whether the host is to be followed no longer.
func (d Direct) Superfluous(now time.Time) bool { return len(d.d.superfluous(now)) > 0 }

// Queued is what messages take of Options.QueueBytes.
func Queued(s *Sources) int64 { return s.queued.Load() }

// HeldSources returns the size of the set, including the sources being removed.
func HeldSources(s *Sources) int { return len(s.all()) }

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

// StraysMax and the others are limits.
const (
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
