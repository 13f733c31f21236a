package hosts

import (
	"context"
	"strings"
	"time"

	"cistern/backfill/pace"
	"cistern/loop"
	"cistern/store"
)

// tally holds the statistics of a host that are not written yet.
type tally struct {
	dirty bool
	bytes int64     // bytes received
	repos int64     // repositories fetched
	err   string    // the last failure
	errAt time.Time // when that was
	seen  time.Time // when it answered as expected last
}

// noted adds what a request shows about the host.
func (y *tally) noted(o pace.Outcome, failure string, now time.Time) {
	switch {
	case failure != "":
		failure = failure[:min(len(failure), store.ErrorBytesMax)]
		y.err, y.errAt, y.dirty = strings.ToValidUTF8(failure, ""), now, true
	case o.Answered:
		y.seen, y.dirty = now, true
	}
}

func (y *tally) received(bytes int64) {
	if bytes > 0 {
		y.bytes += bytes
		y.dirty = true
	}
}

// Run writes the statistics of hosts periodically, until ctx ends. An error means that the store
// failed. It may be called again after it returned.
func (t *Table) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		loop.Sleep(ctx, noteEvery, nil)
		if err := t.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// Flush writes the statistics that are not written yet.
func (t *Table) Flush() error {
	dirty := map[uint32]tally{}
	var ids []uint32
	failing := map[uint32]time.Time{}
	now := t.opts.Now()
	t.mu.Lock()
	for id, h := range t.hosts {
		if h.tally.dirty {
			ids = append(ids, id)
			dirty[id], failing[id] = h.tally, h.View(now).FailingSince
			h.tally = tally{}
		}
	}
	t.mu.Unlock()
	if len(ids) == 0 {
		return nil
	}
	return t.store.NoteHosts(ids, func(id uint32, row *store.HostRow) {
		y := dirty[id]
		row.Bytes += y.bytes
		row.Repos += y.repos
		if y.err != "" {
			row.Error, row.ErrorAt = y.err, unixSeconds(y.errAt)
		}
		row.LastSeen = max(row.LastSeen, unixSeconds(y.seen))
		row.Failing = unixSeconds(failing[id])
	})
}

func unixSeconds(at time.Time) int64 {
	if at.IsZero() {
		return 0
	}
	return at.Unix()
}

// Standing is the current state of a host, in addition to its row.
type Standing struct {
	pace.View
	Bytes, Repos int64     // counted since the row was written
	Error        string    // the last failure since then, "" for none
	ErrorAt      time.Time // when that was
}

// Standing returns the current state of a host.
func (t *Table) Standing(id uint32) Standing {
	now := t.opts.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := t.hosts[id]; h != nil {
		y := h.tally
		return Standing{View: h.View(now), Bytes: y.bytes, Repos: y.repos, Error: y.err,
			ErrorAt: y.errAt}
	}
	var l pace.Limiter // of a host that is not in the table
	l.Configure(t.limits(id))
	return Standing{View: l.View(now)}
}
