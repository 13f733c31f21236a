package fetch

import (
	"context"
	"io"
	"sync/atomic"
	"time"
)

// transfer watches one body: enough bytes must arrive in time. One timer checks it periodically,
// and counts only the time spent waiting for the host, not the time spent processing.
type transfer struct {
	body   io.Reader
	cancel context.CancelCauseFunc
	timer  *time.Timer
	idle   time.Duration

	got    atomic.Int64 // bytes, before decompression
	begun  atomic.Bool  // the headers have arrived
	zstd   bool         // holds a permit for a zstd body
	waited atomic.Int64 // nanoseconds spent in reads that have ended
	since  atomic.Int64 // when the read under way began, 0 for none
	ended  atomic.Bool
	long   atomic.Int32 // longNot, longHeld or longOver

	crowded func() bool // repositories wait for permits, and none is free
	places  *budget     // for long transfers

	// owned by the timer:
	left       time.Duration // until the end of FetchTimeout
	leftLong   time.Duration // what is left when the transfer begins to be a long one
	gotSeen    int64         // got and waited when it looked last
	waitedSeen int64
}

// Whether a transfer holds one of the places for long transfers.
const (
	longNot int32 = iota
	longHeld
	longOver // the transfer has ended
)

func (c *Copier) newTransfer(cancel context.CancelCauseFunc) *transfer {
	tr := &transfer{
		cancel: cancel, idle: c.opts.IdleTimeout,
		left: c.opts.FetchTimeout, leftLong: c.opts.FetchTimeout - longAfter,
		crowded: c.opts.Crowded, places: c.long,
	}
	tr.since.Store(time.Now().UnixNano())         // for the headers
	tr.timer = time.AfterFunc(time.Hour, tr.look) // which reads tr.timer
	tr.timer.Reset(min(tr.idle, tr.left))
	return tr
}

// end stops the watch.
func (tr *transfer) end() {
	tr.ended.Store(true)
	tr.timer.Stop()
	if tr.long.Swap(longOver) == longHeld {
		tr.places.give(1)
	}
}

// mayStay reports whether the transfer is not long, or has a place among the long ones, or keeps no
// other from its permit.
func (tr *transfer) mayStay() bool {
	if tr.left > tr.leftLong || tr.long.Load() != longNot {
		return true
	}
	if !tr.places.take(1) {
		return !tr.crowded()
	}
	if !tr.long.CompareAndSwap(longNot, longHeld) { // it has ended meanwhile
		tr.places.give(1)
	}
	return true
}

func (tr *transfer) look() {
	if tr.ended.Load() {
		return
	}
	tr.left -= tr.idle
	got, waited := tr.got.Load(), tr.waited.Load()
	if since := tr.since.Load(); since != 0 {
		waited += time.Now().UnixNano() - since
	}
	switch {
	case tr.left <= 0:
		tr.cancel(ErrTimeout)
	case got-tr.gotSeen < progressBytes && waited-tr.waitedSeen > int64(tr.idle)/2 && !tr.begun.Load():
		tr.cancel(ErrSilent)
	case got-tr.gotSeen < progressBytes && waited-tr.waitedSeen > int64(tr.idle)/2:
		tr.cancel(ErrSlow)
	case !tr.mayStay():
		tr.cancel(ErrCrowded)
	default:
		tr.gotSeen, tr.waitedSeen = got, waited
		tr.timer.Reset(min(tr.idle, tr.left))
	}
}

// Read counts what arrives and how long it takes.
func (tr *transfer) Read(p []byte) (int, error) {
	begin := time.Now().UnixNano()
	tr.since.Store(begin)
	n, err := tr.body.Read(p)
	tr.since.Store(0)
	tr.waited.Add(time.Now().UnixNano() - begin)
	tr.got.Add(int64(n))
	return n, err
}
