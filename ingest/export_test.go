package ingest

import (
	"context"

	"cistern/store"
)

// Feed gives a Runner messages as the socket of a source would.
type Feed struct {
	r   *Runner
	src *source
}

// NewFeed is a source without a socket.
func NewFeed(r *Runner, url string, pds bool) *Feed {
	src := newSource(r.sources, store.Source{URL: url, PDS: pds})
	r.sources.byURL[url] = src
	return &Feed{r: r, src: src}
}

// RunFeeds is Run without sockets. It calls started once messages may be sent.
func (r *Runner) RunFeeds(ctx context.Context, started func()) error {
	return r.runWith(ctx, func(ctx context.Context) error {
		for _, src := range r.sources.all() {
			if err := src.rewind(); err != nil {
				return err
			}
		}
		started()
		<-ctx.Done()
		return nil
	})
}

// Send hands in a message. Frames that are no events are dropped.
func (f *Feed) Send(ctx context.Context, message []byte) error {
	cost := int64(len(message))
	if err := f.r.sources.queue.Acquire(ctx, cost); err != nil {
		return err
	}
	f.r.sources.queued.Add(cost)
	e := f.r.sources.pool.event()
	e.src, e.message, e.cost = f.src, append([]byte(nil), message...), cost
	err := e.frame.Decode(e.message)
	if err != nil || e.frame.DID == "" {
		f.r.release(e)
		return err
	}
	e.seq, _ = f.src.tracker.begin(e.frame.Seq)
	return f.r.submit(ctx, e)
}

// Idle says that all events are done, and what they wrote is to be read: they are done a moment
// before.
func (f *Feed) Idle() bool { return f.Waiting() == 0 && f.r.Queued() == 0 }

// Waiting is the number of events that are not done.
func (f *Feed) Waiting() int { return f.src.tracker.waiting() }

// Last is the newest seq sent, Mark that up to which all are done.
func (f *Feed) Last() int64 { return f.src.tracker.last() }
func (f *Feed) Mark() int64 { return f.src.tracker.mark() }

// Refused is what its status says.
func (f *Feed) Refused() int64 { return f.src.status().Refused }

// Queued is what of QueueBytes is taken.
func (r *Runner) Queued() int64 { return r.sources.queued.Load() }

// Parked is the number of DIDs that wait for tasks.
func (r *Runner) Parked() int { return int(r.parked()) }

// HeavyRecords, ParkedShare and others are limits.
const (
	HeavyRecords   = heavyRecords
	StatusBurst    = statusBurst
	StatusAsk      = statusAsk
	StatusRate     = statusRate
	ParkedShare    = parkedShare
	CollectionsMax = collectionsMax
)
