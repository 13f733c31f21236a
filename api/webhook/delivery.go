package webhook

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"cistern/api/deliver"
	"cistern/api/durable"

	"golang.org/x/sync/errgroup"
)

// errParked ends the senders of a webhook that is parked.
var errParked = errors.New("the webhook is parked")

// delivery sends the events of one webhook, until that is changed.
type delivery struct {
	runner *Runner
	hook   *durable.Hook
	logger *slog.Logger

	// mu guards:
	mu       sync.Mutex
	endpoint *endpoint
	moved    chan struct{} // closed, and replaced, when the endpoint has changed
	logged   time.Time     // when a failure was logged last
	troubled bool          // the present failures were logged
}

func newDelivery(r *Runner, h *durable.Hook) *delivery {
	return &delivery{runner: r, hook: h,
		logger:   r.opts.Logger.With(slog.String("subscription", h.Name)),
		endpoint: newEndpoint(h.Webhook.Requests, h.State(), r.opts.Jitter, time.Now()),
		moved:    make(chan struct{})}
}

// run sends until ctx ends or the webhook is changed. A webhook that is parked has no senders.
func (d *delivery) run(ctx context.Context) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	var watch errgroup.Group
	watch.Go(func() error {
		defer end()
		select {
		case <-d.hook.Done():
		case <-ctx.Done():
		}
		return nil
	})
	g, inner := errgroup.WithContext(ctx)
	for range d.senders() {
		g.Go(func() error { return (&sender{delivery: d}).run(inner) })
	}
	if err := unlessEnded(g.Wait()); err != nil {
		return err // and end
	}
	return watch.Wait()
}

// senders returns how many senders there are to be.
func (d *delivery) senders() int {
	if d.hook.State().Parked != 0 {
		return 0
	}
	return d.hook.Webhook.Requests
}

// admit waits until a request may be made. done must follow if the error is nil; otherwise it is
// errParked or that of ctx.
func (d *delivery) admit(ctx context.Context) (permit, error) {
	for {
		d.mu.Lock()
		round, at, ok := d.endpoint.begin(time.Now())
		parked, moved := d.endpoint.kept.Parked != 0, d.moved
		p := permit{round: round, first: d.endpoint.inFlight == 1}
		if ok {
			d.report()
		}
		d.mu.Unlock()
		switch {
		case parked:
			return p, errParked
		case !ok:
			if err := wait(ctx, moved, at); err != nil {
				return p, err
			}
			continue
		case p.first:
			return p, nil
		}
		if err := d.runner.slots.Acquire(ctx, 1); err != nil {
			p.first = true // it has no slot
			d.cancel(p)
			return p, err
		}
		if d.current(p) {
			return p, nil
		}
		d.cancel(p)
	}
}

// current reports whether nothing has failed since a permit was given: the wait for a slot may be
// long, and an endpoint that fails meanwhile must not get the requests that waited.
func (d *delivery) current(p permit) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.endpoint.round == p.round
}

// permit is for one request.
type permit struct {
	round uint64
	first bool // the only request of the webhook when it began, which takes no slot
}

// wait waits for a signal, or until a time if that is not zero.
func wait(ctx context.Context, signal <-chan struct{}, until time.Time) error {
	var due <-chan time.Time
	if !until.IsZero() {
		t := time.NewTimer(time.Until(until))
		defer t.Stop()
		due = t.C
	}
	select {
	case <-signal:
	case <-due:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// cancel gives back a permit of a request that was not made, or was cut.
func (d *delivery) cancel(p permit) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.endpoint.cancel()
	d.release(p)
}

// end gives back the permit of a request that has ended. The error is errParked if it was the last.
func (d *delivery) end(p permit, o outcome) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	c := d.endpoint.end(p.round, o, now)
	d.release(p)
	d.log(c, o, now)
	if d.endpoint.kept.Parked != 0 {
		return errParked
	}
	return nil
}

// release gives back what a permit holds, and wakes the senders. mu is held.
func (d *delivery) release(p permit) {
	if !p.first {
		d.runner.slots.Release(1)
	}
	d.report()
	close(d.moved)
	d.moved = make(chan struct{})
}

// report states the state of the endpoint. mu is held.
func (d *delivery) report() { d.hook.Report(d.endpoint.kept, d.endpoint.inFlight) }

// log logs the first of some failures, every logEvery at most, and what ended them. mu is held.
func (d *delivery) log(c change, o outcome, now time.Time) {
	switch c {
	case faltered:
		if d.troubled = now.Sub(d.logged) >= logEvery; d.troubled {
			d.logged = now
			d.logger.Warn("webhook fails; its events are sent again, for 76 hours at most",
				slog.String("err", o.err), slog.Time("next", time.UnixMilli(d.endpoint.kept.Next)))
		}
	case parked:
		d.logger.Error("webhook is parked; POST /subscriptions/{name}/resume sends again",
			slog.String("reason", d.endpoint.kept.Reason), slog.String("err", o.err))
	case recovered:
		if d.troubled {
			d.logger.Info("webhook takes events again")
		}
		d.troubled = false
	}
}

// sender makes one request at a time, as one member of the subscription: each account is at one
// sender, so that its events arrive in order.
type sender struct {
	*delivery
	member *durable.Member
	feed   *deliver.Feed
}

// run makes requests until ctx ends, the webhook is changed or parked. Its position is then
// durable.
func (s *sender) run(ctx context.Context) (err error) {
	if s.member, err = s.hook.Attach(); err != nil {
		return err
	}
	defer s.member.Detach()
	s.feed = s.runner.opts.Delivery.Feed(s.member, s.runner.opts.Delivery.JSON())
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	// The feed runs until the last request has ended, so that its events are settled on disk.
	kept, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var g errgroup.Group
	g.Go(func() error {
		defer stop()
		return s.feed.Run(kept)
	})
	err = s.sendAll(ctx)
	end()
	if kerr := unlessEnded(g.Wait()); kerr != nil {
		return kerr
	}
	return err
}

// sendAll makes one request after the other.
func (s *sender) sendAll(ctx context.Context) error {
	most := s.hook.Webhook.Events
	for {
		if err := s.feed.Wait(ctx, most); err != nil {
			return err
		}
		// Nothing is read before the request may be made: webhooks that fail hold no events.
		p, err := s.admit(ctx)
		if err != nil {
			return err
		}
		end := s.runner.opts.Gate.Begin()
		if end == nil {
			s.cancel(p) // so that a pause holds none of the permits that webhooks share
			if !s.runner.opts.Gate.Pass(ctx) {
				return ctx.Err()
			}
			continue
		}
		most, err = s.sendNext(ctx, p, most)
		if end(); err != nil {
			return err
		}
	}
}

// sendNext makes one request with the next events, if there are any. It returns how many events the
// next one may have.
func (s *sender) sendNext(ctx context.Context, p permit, most int) (next int, err error) {
	messages, err := s.feed.Read(ctx, most, bodyBytesMax)
	if err != nil || len(messages) == 0 {
		s.cancel(p)
		return s.hook.Webhook.Events, err
	}
	return s.send(ctx, p, messages)
}

// send makes one request, and settles its events if it succeeds. It returns how many events the
// next one may have: after a failure the same events come again.
func (s *sender) send(
	ctx context.Context, p permit, messages []deliver.Message,
) (most int, err error) {
	id := idOf(s.hook.Name, s.runner.opts.Epoch, messages)
	body := bodyOf(messages, time.Now())
	for i := range messages {
		messages[i].Body = nil // so that the events are in memory once, see bodyBytesMax
	}
	sending, end := s.draining(ctx)
	defer end()
	o, cut := s.runner.poster.post(sending, &s.hook.Webhook, id, body)
	if cut {
		s.cancel(p)
		return 0, ctx.Err()
	}
	most = len(messages)
	if o.verdict == succeeded {
		s.acknowledge(messages)
		s.runner.metrics.events.WithLabelValues(s.hook.Name).Add(float64(len(messages)))
		most = s.hook.Webhook.Events
	} else {
		s.feed.Back(messages)
	}
	s.runner.metrics.requests.WithLabelValues(s.hook.Name, o.class).Inc()
	return most, s.end(p, o)
}

// acknowledge settles what a request delivered.
func (s *sender) acknowledge(messages []deliver.Message) {
	ids := make([]uint64, 0, len(messages))
	for _, m := range messages {
		if m.GapTo != 0 {
			s.member.AcknowledgeGap(m.ID, m.GapTo)
		} else {
			ids = append(ids, m.ID)
		}
	}
	s.member.Acknowledge(ids...)
}

// draining returns a context that ends DrainTimeout after ctx. Its function waits for the goroutine
// that ends it.
func (s *sender) draining(ctx context.Context) (context.Context, context.CancelFunc) {
	out, end := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		_ = wait(out, nil, time.Now().Add(s.runner.opts.DrainTimeout))
		end()
	})
	return out, func() {
		end()
		if !stop() {
			<-ended
		}
	}
}
