package backfill

import "context"

// Picked is a repository whose turn it is, in flight until Done.
type Picked struct {
	DID  string
	Done func()
}

// Pick does what the dispatcher does for one task, which is not run.
func Pick(ctx context.Context, r *Runner) (Picked, error) {
	r.dispatcher.scan()
	c, err := r.dispatcher.next(ctx)
	if c == nil {
		return Picked{}, err
	}
	return Picked{DID: c.it.did, Done: func() { r.dispatcher.release(c, true); r.dispatcher.end(c) }}, nil
}
