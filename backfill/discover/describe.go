package discover

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"cistern/backfill/discover/pages"
	"cistern/backfill/hosts"
	"cistern/ingest/identity"
	"cistern/loop"
	"cistern/store"

	"golang.org/x/sync/errgroup"
)

// signalAnswer is the answer of a host to whether an account has a collection that a signal names.
type signalAnswer uint8

const (
	unanswered signalAnswer = iota // no answer yet, or a failure
	unparsed                       // the answer about this account did not parse; others may
	onSignal                       // it has a collection that a signal names
	offSignal                      // it has none, or is unavailable
)

// describe asks the host of an account which collections it has. at is the host's origin, "" to
// look it up.
func (r *Runner) describe(ctx context.Context, did, at string) (signalAnswer, error) {
	if at == "" {
		ident, err := r.opts.Directory.Resolve(ctx, did)
		if err == nil {
			at = ident.PDS
		}
		if errors.Is(err, identity.ErrNotFound) || errors.Is(err, identity.ErrInvalid) ||
			err == nil && at == "" {
			return offSignal, nil // no host has it
		}
		if err != nil {
			return unanswered, &hosts.ResolveError{Err: err}
		}
	}
	body, err := r.hosts.Query(ctx, at, "com.atproto.repo.describeRepo",
		url.Values{"repo": {did}}, hosts.DescribeBodyMax, r.opts.IdleTimeout)
	var answer *hosts.AnswerError
	switch {
	case hosts.IsOfStore(err), err == nil:
	case errors.As(err, &answer) && answer.Code < http.StatusInternalServerError &&
		answer.Code != http.StatusTooManyRequests && answer.Name != "":
		return offSignal, nil // the account is unavailable there
	}
	if err != nil {
		return unanswered, err
	}
	switch holds, err := hosts.HoldsAny(body, did, r.store.Filter().Signal); {
	case err != nil:
		return unanswered, err
	case holds:
		return onSignal, nil
	}
	return offSignal, nil
}

// inspect returns the entries of a page that need a change of a row: an unknown account must have a
// collection that a signal names. The answers of hosts are kept in known, so that a page that is
// requested again does not ask about each account again. later are the accounts that must be asked
// about later. An error means that their host fails.
func (r *Runner) inspect(
	ctx context.Context, todo []pages.Entry, v reading, origin string, known map[string]signalAnswer,
) (left []pages.Entry, later []string, err error) {
	answers := make([]signalAnswer, len(todo))
	errs := make([]error, len(todo))
	g := new(errgroup.Group)
	g.SetLimit(describeMax)
	for i, e := range todo {
		row, err := r.store.RepoOrNew(e.DID)
		if err != nil {
			return nil, nil, errors.Join(hosts.OfStore(err), g.Wait())
		}
		switch answers[i] = known[e.DID]; {
		case r.find(&row, e, v) != isUnsure:
			answers[i] = onSignal // no question to the host is needed
		case answers[i] == unanswered:
			g.Go(func() error {
				answers[i], errs[i] = r.describe(ctx, e.DID, origin)
				return nil
			})
		}
	}
	_ = g.Wait() // the errors are in errs
	for i, e := range todo {
		switch {
		case hosts.IsOfStore(errs[i]) || ctx.Err() != nil:
			return nil, nil, errors.Join(errs[i], ctx.Err())
		case answers[i] == onSignal:
			left = append(left, e)
		case answers[i] == unanswered && isOfHost(errs[i]):
			later = append(later, e.DID)
			if err == nil {
				err = errs[i]
			}
		case answers[i] == unanswered, answers[i] == unparsed:
			// The host is not asked about this account again with this page: each such failure
			// parks the host before the other accounts are asked about.
			answers[i] = unparsed
			later = append(later, e.DID)
		}
		known[e.DID] = answers[i]
	}
	return left, later, err
}

// isOfHost reports whether the whole host failed, so that requests about its other accounts would
// fail too.
func isOfHost(err error) bool {
	var busy *hosts.BusyError
	var answer *hosts.AnswerError
	var resolve *hosts.ResolveError
	switch {
	case errors.As(err, &busy), errors.As(err, &resolve):
		return true
	case errors.As(err, &answer):
		return answer.Code == http.StatusTooManyRequests || answer.Code > http.StatusInternalServerError
	}
	return !errors.Is(err, hosts.ErrMalformed) && !errors.Is(err, hosts.ErrTooLong)
}

// postpone adds to a batch the accounts that must be asked about later.
func (r *Runner) postpone(b *store.Batch, dids []string) {
	for _, did := range dids {
		l := describeRetry{did: did, due: r.opts.Now().Add(laterBase), tries: 1}
		if !r.describeRetries.put(l) {
			continue // the next pass names it again
		}
		b.PutDescribeRetry(did, l.row())
	}
	if len(dids) > 0 {
		loop.Wake(r.kickLater)
	}
}

// reconsider asks hosts again about accounts whose collections are still unknown, with growing
// delays, until the hosts answer.
func (r *Runner) reconsider(ctx context.Context) error {
	all, err := r.store.DescribeRetries()
	if err != nil {
		return loop.Quiet(ctx, hosts.OfStore(err))
	}
	for did, row := range all {
		r.describeRetries.put(describeRetryOf(did, row))
	}
	for r.opts.Gate.Pass(ctx) {
		g := new(errgroup.Group)
		g.SetLimit(describeMax)
		for _, l := range r.describeRetries.take(r.opts.Now()) {
			g.Go(func() error {
				if ctx.Err() != nil {
					r.describeRetries.again(l) // Crawl may be called again
					return nil
				}
				return r.askAgain(ctx, l)
			})
		}
		if err := g.Wait(); err != nil {
			return loop.Quiet(ctx, err)
		}
		loop.Sleep(ctx, min(r.describeRetries.wait(r.opts.Now()), sleepMax), r.kickLater)
	}
	return nil
}

// askAgain asks about one account, and writes what follows.
func (r *Runner) askAgain(ctx context.Context, l describeRetry) error {
	did := l.did
	saw := offSignal
	v, _ := r.viewOf(Source{Kind: SourceRepos}, r.store.Filter())
	row, err := r.store.RepoOrNew(did)
	if err == nil && v.ask && r.find(&row, pages.Entry{DID: did}, v) == isUnsure {
		saw, err = r.describe(ctx, did, "")
	}
	if hosts.IsOfStore(err) || ctx.Err() != nil {
		r.describeRetries.again(l)
		return err
	}
	if saw == unanswered {
		b := r.store.NewBatch()
		wait := r.jitter.Vary(min(describeRetryMax, laterBase<<min(l.tries, 10)))
		l.due, l.tries = r.opts.Now().Add(wait), l.tries+1
		b.PutDescribeRetry(did, l.row())
		r.describeRetries.again(l)
		return hosts.OfStore(b.CommitSync())
	}
	var todo []pages.Entry
	if saw == onSignal {
		todo = []pages.Entry{{DID: did}}
	}
	_, err = r.absorb(todo, v, func(b *store.Batch) { b.DropDescribeRetry(did) })
	if err == nil {
		r.describeRetries.drop(did)
		return nil
	}
	r.describeRetries.again(l)
	if errors.Is(err, errRefiltered) {
		return nil // repeated at once, with the new filter
	}
	return err
}
