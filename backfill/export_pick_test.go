package backfill

import "context"

// Picked is a repository whose turn it is, in flight until Done.
type Picked struct {
	DID  string
	Done func()
}

// Pick does what the dispatcher does for one task, which is not run.
func Pick(ctx context.Context, r *Runner) (Picked, error) {
	r.scanHosts()
	t, err := r.next(ctx)
	if t == nil {
		return Picked{}, err
	}
	return Picked{DID: t.it.did, Done: func() { r.release(t, true); t.end(outcome{}) }}, nil
}
