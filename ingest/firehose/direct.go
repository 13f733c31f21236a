package firehose

import (
	"sync"
	"sync/atomic"
	"time"

	"cistern/ingest/frame"
	"cistern/store"
)

// direct decides how long hosts are followed directly, in addition to relays. A relay limits how
// many accounts of one host it passes on; the host's listing then shows new revs that the relay
// does not send. FollowHost adds the host's own firehose in that case.
//
// An account counts as unheard when a commit of it that came from its host was applied, and no
// relay sent a valid one within heardWithin. Other events do not count: a relay that throttles an
// account still sends them. A direct source without any such account for directFor is dropped
// again. After a restart directFor begins anew.
type direct struct {
	any atomic.Bool // needed holds any source
	mu  sync.Mutex
	// mu guards; by DID: the oldest commit from its host that no relay has sent
	applied map[string]appliedEvent
	needed  map[*Source]time.Time // mu guards; when an account of it was last found unheard
}

type appliedEvent struct {
	src *Source
	at  time.Time
}

// note records a valid event, which was applied or known already. Only commits count.
func (d *direct) note(e *Event, applied bool, now time.Time) {
	commit := e.Frame.Kind == frame.KindCommit || e.Frame.Kind == frame.KindSync
	if !d.any.Load() || !commit {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !e.Source.pds.Load() {
		delete(d.applied, e.Frame.DID)
		return
	}
	if _, waits := d.applied[e.Frame.DID]; waits || !applied || !e.Source.direct.Load() {
		return
	}
	if len(d.applied) < unheardMax {
		d.applied[e.Frame.DID] = appliedEvent{e.Source, now}
	} else if _, follows := d.needed[e.Source]; follows {
		d.needed[e.Source] = now // no room to find out: keep this source, whatever other hosts do
	}
}

// begin marks a source as needed now.
func (d *direct) begin(src *Source, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.needed[src] = now
	d.any.Store(true)
}

// superfluous returns the direct sources that had no unheard account for directFor.
func (d *direct) superfluous(now time.Time) (all []*Source) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for did, a := range d.applied {
		if now.Sub(a.at) >= heardWithin {
			delete(d.applied, did)
			if _, follows := d.needed[a.src]; follows {
				d.needed[a.src] = now
			}
		}
	}
	for src, at := range d.needed {
		if src.isRemoved() || now.Sub(at) >= directFor {
			delete(d.needed, src)
			all = append(all, src)
		}
	}
	if len(d.needed) == 0 {
		d.any.Store(false)
		clear(d.applied)
	}
	return all
}

// FollowHost follows the firehose of the PDS at origin directly: its listing shows commits that the
// relays do not send. It does nothing if the PDS is followed already, if no relay is followed, or
// if directMax hosts are followed directly. The source survives restarts and is dropped when the
// relays send its events again.
func (s *Sources) FollowHost(origin string) error {
	row, err := ParseSource(origin, true)
	if err != nil {
		return err
	}
	row.Direct = true
	s.rows.Lock()
	defer s.rows.Unlock()
	isDirect := func(src *Source) bool { return src.direct.Load() }
	isRelay := func(src *Source) bool { return !src.pds.Load() }
	if s.get(row.URL) != nil || s.count(isRelay) == 0 || s.count(isDirect) >= directMax ||
		s.count(nil) >= sourcesMax {
		return nil
	}
	b := s.store.NewBatch()
	b.PutSource(row)
	if err := b.CommitSync(); err != nil {
		return err
	}
	s.opts.Logger.Info("following the firehose of a host directly: its listing shows commits that "+
		"no relay sent", "source", row.URL)
	return s.follow(row)
}

// dropDirect drops the direct sources that are no longer needed.
func (s *Sources) dropDirect() error {
	for _, src := range s.direct.superfluous(s.opts.Now()) {
		if err := s.dropOne(src); err != nil {
			return err
		}
	}
	return nil
}

func (s *Sources) dropOne(src *Source) error {
	s.rows.Lock()
	defer s.rows.Unlock()
	if !src.direct.Load() || src.isRemoved() {
		return nil // meanwhile an operator added it by name, or removed it
	}
	b := s.store.NewBatch()
	b.DropSource(src.url)
	// it is read from its newest message if it is needed again, and its listing compared
	b.DropCursor(src.url)
	b.DropProgress(src.url)
	if err := b.CommitSync(); err != nil {
		return err
	}
	src.persisted.Store(false)
	src.setRemoved(true)
	s.opts.Logger.Info("no longer following the firehose of a host directly: the relays send its "+
		"events", "source", src.url)
	return nil
}

// mark sets whether a source is direct, from its row.
func (s *Sources) mark(src *Source, row store.Source) {
	src.direct.Store(row.Direct)
	if row.Direct {
		s.direct.begin(src, s.opts.Now())
	}
}
