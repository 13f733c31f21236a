package hosts

import (
	"context"
	"net/http"
	"time"

	"cistern/backfill/pace"
	"cistern/loop"
)

// Permit allows requests to one host. It belongs to one goroutine, which must close it. Note,
// Received and Fetched may be called after Close.
type Permit struct {
	t     *Table
	h     *host
	state pace.Permit // of the limiter when the permit was given
	kind  pace.Kind   // kind of the included request

	// Table.mu guards:
	local   bool // holds one of the host's permits
	global  bool // holds one of the permits that all hosts share
	prepaid bool // the included request was not sent yet
}

// begin gives a permit for a fetch. Called with mu held.
func (t *Table) begin(h *host, now time.Time) *Permit {
	state := t.sched.Begin(&h.Host, now)
	return &Permit{
		t: t, h: h, state: state, kind: pace.Fetch,
		local: true, global: true, prepaid: true,
	}
}

// query gives a permit for one query. Called with mu held.
func (t *Table) query(h *host, now time.Time) *Permit {
	state := h.Limiter.Begin(pace.Query, now)
	return &Permit{t: t, h: h, state: state, kind: pace.Query, local: true, prepaid: true}
}

// Host returns the id of the host.
func (p *Permit) Host() uint32 { return p.h.ID }

// Leave gives back the host's part of the permit, once the host has answered. The part that all
// hosts share is held until Close.
func (p *Permit) Leave() { p.release(false) }

// Close gives the permit back. Calling it again does nothing.
func (p *Permit) Close() { p.release(true) }

func (p *Permit) release(all bool) {
	p.t.mu.Lock()
	freed := p.give(all)
	p.t.mu.Unlock()
	if freed {
		p.t.opts.Freed()
	}
}

// give returns the parts of the permit to their owners, and reports whether it still held any.
// Called with mu held.
func (p *Permit) give(all bool) (freed bool) {
	if p.local {
		p.local = false
		if p.prepaid {
			p.prepaid = false
			p.h.Refund(p.kind)
		}
		p.t.leave(p.h)
		freed = true
	}
	if all && p.global {
		p.global = false
		p.t.sched.Return(&p.h.Host, p.state, p.t.opts.Now())
		freed = true
	}
	return freed
}

// leave gives a host's part of a permit back: first to a request that waits for it, else to the
// scheduler. Called with mu held.
func (t *Table) leave(h *host) {
	now := t.opts.Now()
	t.sched.Leave(&h.Host, now)
	t.serve(h, now)
}

// Do waits until the host may be asked once more, sends it a request for an XRPC method, and notes
// the quotas that the answer states. The permit includes the first request. If the wait would
// exceed admitMax, the error is a BusyError, and the caller must queue the repository again instead
// of holding the permit. A request that is redirected is charged to the host that it is sent to.
func (p *Permit) Do(req *http.Request) (*http.Response, error) {
	k := kindOf(req.URL)
	if err := p.spend(req.Context(), k); err != nil {
		return nil, err
	}
	asked := p.t.opts.Now()
	resp, err := p.t.client.Do(req)
	if err == nil && resp.Request.URL.Host == req.URL.Host {
		p.heard(k, resp.Header, p.t.opts.Now().Sub(asked))
	}
	if err == nil {
		resp.Body = p.t.counted(req.Context(), resp.Body)
	}
	return resp, err
}

// spend waits until the host may be asked once more, and charges the request to it.
func (p *Permit) spend(ctx context.Context, k pace.Kind) error {
	for {
		at, paid := p.payAhead(k)
		if paid {
			return nil
		}
		if at.IsZero() {
			return p.t.spend(ctx, p.h, k)
		}
		d := at.Sub(p.t.opts.Now())
		if d > admitMax {
			return &BusyError{Until: at, Queries: true}
		}
		if loop.Sleep(ctx, max(d, time.Millisecond), nil); ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// payAhead uses up the request that the permit includes, if that was not sent yet: then paid is
// true. If the included request is of another kind and may only be exchanged later, at is the
// earliest time. If neither is set, the included request was used before.
func (p *Permit) payAhead(k pace.Kind) (at time.Time, paid bool) {
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	if !p.prepaid {
		return at, false
	}
	if p.kind == pace.Fetch && k == pace.Query {
		if at = p.h.Exchange(p.t.opts.Now()); !at.IsZero() {
			return at, false
		}
	}
	p.prepaid = false
	return at, true
}

// spend waits until the windows of a host allow one more request, and charges the request to the
// host.
func (t *Table) spend(ctx context.Context, h *host, k pace.Kind) error {
	for {
		now := t.opts.Now()
		t.mu.Lock()
		at, banned := h.Opens(k, now), h.Banned()
		queries := !h.Opens(pace.Fetch, now).After(now)
		if !at.After(now) && !banned {
			h.Spend(k, now)
		}
		t.mu.Unlock()
		switch d := at.Sub(now); {
		case banned, d > admitMax:
			return &BusyError{Until: at, Queries: queries && !banned}
		case d > 0:
			loop.Sleep(ctx, d, nil)
		default:
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// Spares reports whether the host has announced no quota of queries, or at least half of the quota
// is left.
func (p *Permit) Spares() bool {
	now := p.t.opts.Now()
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	return p.h.Spare(pace.Query, now)
}

// heard passes the header of an answer to the host's limiter, and how long after its request the
// answer began.
func (p *Permit) heard(k pace.Kind, header http.Header, took time.Duration) {
	now := p.t.opts.Now()
	q := pace.ParseQuota(header, now)
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	p.h.Heard(k, took, q, p.state, now)
}

// Note applies what a request shows about the host. failure is shown as the last failure of the
// host, cut to store.ErrorBytesMax; "" means none.
func (p *Permit) Note(o pace.Outcome, failure string) {
	now := p.t.opts.Now()
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	if p.h.Note(o, p.state, now) > 0 {
		p.t.metrics.parkings.Inc()
	}
	p.h.tally.noted(o, failure, now)
}

// Received counts bytes that came from the host.
func (p *Permit) Received(bytes int64) {
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	p.h.tally.received(bytes)
}

// Fetched counts a repository that came from the host.
func (p *Permit) Fetched() {
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	p.h.tally.repos++
}
