package backfill

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"cistern/backfill/hosts"
	"cistern/backfill/pace"
	"cistern/ingest/identity"
	"cistern/store"
)

// waiter waits for a permit of a host.
type waiter struct {
	granted chan pace.Permit // of one; closed when the host is to be looked at again
}

// answered is how a request ended that admit let through.
type answered struct {
	err    error
	header http.Header   // of the answer, nil if there was none
	took   time.Duration // until it began
	bytes  int64         // of its body
}

// admit waits until a host may be asked once more, for requests that belong to no task, and is told by done how that
// one ended, which must be called. A host that is parked or has spent a window for more than admitMax is a hosts.BusyError, a banned
// one hosts.ErrBanned: whoever asks should do something else meanwhile.
func (r *Runner) admit(ctx context.Context, hostID uint32) (done func(answered), err error) {
	for {
		h, p, w, err := r.knock(hostID)
		if err != nil {
			return nil, err
		}
		if w == nil && h != nil {
			return func(a answered) { r.dismiss(ctx, h, p, a) }, nil
		}
		if w == nil { // in a moment
			sleep(ctx, max(r.opensIn(hostID), time.Millisecond), nil)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			continue
		}
		select {
		case p, ok := <-w.granted:
			if ok {
				return func(a answered) { r.dismiss(ctx, h, p, a) }, nil
			}
		case <-ctx.Done():
			r.giveUp(h, w)
			return nil, ctx.Err()
		}
	}
}

// knock takes a permit if there is one, or queues for it, or gives neither when the host opens soon.
func (r *Runner) knock(hostID uint32) (h *host, p pace.Permit, w *waiter, err error) {
	now := r.opts.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if h = r.hostOf(hostID); h == nil {
		return nil, p, nil, &hosts.BusyError{Until: now.Add(crawlPause)}
	}
	switch at := h.Opens(pace.Query, now); {
	case h.Banned():
		return nil, p, nil, hosts.ErrBanned
	case at.Sub(now) > admitMax || h.Parked(now):
		return nil, p, nil, &hosts.BusyError{Until: at}
	case at.After(now):
		return nil, p, nil, nil
	case h.Open(pace.Query, now) && len(h.waiters) == 0:
		return h, h.Limiter.Begin(pace.Query, now), nil, nil
	}
	w = &waiter{granted: make(chan pace.Permit, 1)}
	h.waiters = append(h.waiters, w)
	return h, p, w, nil
}

func (r *Runner) opensIn(hostID uint32) time.Duration {
	now := r.opts.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if h := r.hosts[hostID]; h != nil {
		return h.Opens(pace.Query, now).Sub(now)
	}
	return 0
}

// giveUp takes back a place in the queue, or the permit that it has just become.
func (r *Runner) giveUp(h *host, w *waiter) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.Index(h.waiters, w); i >= 0 {
		h.waiters = slices.Delete(h.waiters, i, i+1)
		return
	}
	if _, ok := <-w.granted; ok { // filled or closed under mu
		h.Refund(pace.Query)
		r.leaveHost(h)
	}
}

// leaveHost gives back a host's part of a permit, to who waits for it before the dispatcher. Called with mu held.
func (r *Runner) leaveHost(h *host) {
	now := r.opts.Now()
	r.sched.Leave(&h.Host, now)
	r.serve(h, now)
	r.push(h)
}

// serve lets in who waits for a permit of a host. When that is not a matter of permits any more, they are to
// look again. Called with mu held.
func (r *Runner) serve(h *host, now time.Time) {
	for len(h.waiters) > 0 {
		w := h.waiters[0]
		switch {
		case h.Open(pace.Query, now):
			w.granted <- h.Limiter.Begin(pace.Query, now)
		case h.Banned() || h.Opens(pace.Query, now).After(now):
			close(w.granted)
		default:
			return
		}
		h.waiters = slices.Delete(h.waiters, 0, 1)
	}
}

// dismiss ends a request that admit let through.
func (r *Runner) dismiss(ctx context.Context, h *host, p pace.Permit, a answered) {
	v := verdict{spoke: true}
	if a.err != nil { // a request that we cancelled says nothing about the host
		v = classify(ctx, a.err, r.opts.Now())
	}
	r.heard(h, pace.Query, p, a.header, a.took)
	r.mu.Lock()
	if v.ending == endRetry || v.ending == endGone {
		r.blame(h, p, v)
	}
	h.tally.received(a.bytes)
	r.leaveHost(h)
	r.mu.Unlock()
	signal(r.kick)
}

// heard passes the status and header of an answer to the limiter of its host. header may be nil.
func (r *Runner) heard(h *host, k pace.Kind, p pace.Permit, header http.Header, took time.Duration) {
	now := r.opts.Now()
	q := pace.ParseQuota(header, now)
	r.mu.Lock()
	defer r.mu.Unlock()
	h.Heard(k, took, q, p, now)
}

// kindOf returns the kind of request by which hosts count a method.
func kindOf(method string) pace.Kind {
	if method == repoMethod {
		return pace.Fetch
	}
	return pace.Query
}

// spend waits until the host of a task, which holds a permit already, may be asked once more, and
// notes that it is. The permit includes the first request. When the wait would exceed admitMax the
// error is a hosts.BusyError, and the task is queued again: a waiting task must not hold a permit.
func (t *task) spend(ctx context.Context, k pace.Kind) error {
	if t.host == nil {
		return nil
	}
	for {
		at, paid := t.payAhead(k)
		if paid {
			return nil
		}
		if at.IsZero() {
			return t.r.spendAt(ctx, t.host, k)
		}
		d := at.Sub(t.r.opts.Now())
		if d > admitMax {
			return &hosts.BusyError{Until: at, Queries: true}
		}
		if sleep(ctx, max(d, time.Millisecond), nil); ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// payAhead charges a request to the one that the permit includes, if that was not sent yet. A time
// is the earliest at which this is allowed; without a time and not paid, the included request was
// already used.
func (t *task) payAhead(k pace.Kind) (at time.Time, paid bool) {
	t.r.mu.Lock()
	defer t.r.mu.Unlock()
	if !t.prepaid {
		return at, false
	}
	if k == pace.Query { // the permit was given for a fetch
		if at = t.host.Exchange(t.r.opts.Now()); !at.IsZero() {
			return at, false
		}
	}
	t.prepaid = false
	return at, true
}

// spendAt waits until a host may be asked once more as far as time decides, and notes that it is.
func (r *Runner) spendAt(ctx context.Context, h *host, k pace.Kind) error {
	for {
		now := r.opts.Now()
		r.mu.Lock()
		at, banned := h.Opens(k, now), h.Banned()
		queries := !h.Opens(pace.Fetch, now).After(now)
		if !at.After(now) && !banned {
			h.Spend(k, now)
		}
		r.mu.Unlock()
		switch d := at.Sub(now); {
		case banned, d > admitMax:
			return &hosts.BusyError{Until: at, Queries: queries && !banned}
		case d > 0:
			sleep(ctx, d, nil)
		default:
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// crowded reports whether hosts with work wait for a permit.
func (r *Runner) crowded() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sched.Crowded()
}

// spares reports whether the host of a task announced no quota of queries, or has at least half of
// it left.
func (t *task) spares() bool {
	now := t.r.opts.Now()
	t.r.mu.Lock()
	defer t.r.mu.Unlock()
	return t.host == nil || t.host.Spare(pace.Query, now)
}

// checkRedirect is an http.Client.CheckRedirect: whoever sends us elsewhere must not have us ask a host that is banned or parked,
// or more often than its windows allow. What it refuses is the sender's failure.
func (r *Runner) checkRedirect(req *http.Request, via []*http.Request) error {
	err := identity.CheckRedirect(req, via)
	if err == nil {
		err = r.spendElsewhere(req)
	}
	if err != nil {
		return fmt.Errorf("%w to %s: %v", hosts.ErrRedirect, clean(req.URL.Redacted()), err) // not a hosts.BusyError: the redirecting host would be asked again at once
	}
	return nil
}

// spendElsewhere is spendAt for the host of a request. One that we do not know is not taken up: names cost nothing.
func (r *Runner) spendElsewhere(req *http.Request) error {
	origin, err := identity.ParseOrigin(req.URL.Scheme + "://" + req.URL.Host)
	if err != nil {
		return err
	}
	to, err := r.store.HostNamed(identity.HostOf(origin))
	if errors.Is(err, store.ErrNotFound) {
		if _, banned := r.opts.HostRules.Of(identity.HostOf(origin)); banned {
			return hosts.ErrBanned
		}
		return nil
	}
	if err != nil {
		return err
	}
	r.mu.Lock()
	h := r.hostOf(to.ID)
	r.mu.Unlock()
	if h == nil {
		return errors.New("too many hosts are in use")
	}
	return r.spendAt(req.Context(), h, kindOf(strings.TrimPrefix(req.URL.Path, "/xrpc/")))
}
