package firehose

import (
	"context"

	"cistern/store"
)

// Feed is a source without a connection, whose messages the caller has: for tests of what takes
// events.
type Feed struct{ src *Source }

// NewFeed adds a feed to the set, in place of the source with its URL. Run must not be called.
func (s *Sources) NewFeed(url string, pds bool) *Feed {
	src := newSource(s, store.Source{URL: url, PDS: pds})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byURL[url] = src
	return &Feed{src}
}

// Rewind goes back to the durable cursor, as Run does first. No event may be in flight.
func (f *Feed) Rewind() error { return f.src.rewind() }

// Event returns the event of a message, nil if the message is no event. It waits for memory.
func (f *Feed) Event(ctx context.Context, message []byte) (*Event, error) {
	s, cost := f.src.set, int64(len(message))
	if err := s.queue.Acquire(ctx, cost); err != nil {
		return nil, err
	}
	s.queued.Add(cost)
	e := s.pool.event()
	e.Source, e.Message, e.cost = f.src, append([]byte(nil), message...), cost
	err := e.Frame.Decode(e.Message)
	if err != nil || e.Frame.DID == "" {
		e.Release()
		return nil, err
	}
	e.Number, _ = f.src.tracker.begin(e.Frame.Seq)
	return e, nil
}

// Last returns the newest seq, Mark the seq up to which all events are done, and Waiting the number
// of events that are not done.
func (f *Feed) Last() int64  { return f.src.tracker.last() }
func (f *Feed) Mark() int64  { return f.src.tracker.mark() }
func (f *Feed) Waiting() int { return f.src.tracker.waiting() }

// Queued returns the memory of all events of the set, in bytes.
func (f *Feed) Queued() int64 { return f.src.set.queued.Load() }

// Refused returns the number of events about accounts that are not the source's own.
func (f *Feed) Refused() int64 { return f.src.foreign.Load() }
