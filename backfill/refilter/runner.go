package refilter

import (
	"context"
	"fmt"

	"cistern/loop"
	"cistern/store"
)

// Runner adapts all repositories to the filter in force, whenever the filter was changed.
type Runner struct {
	opts    Options
	store   *store.Store
	kick    chan struct{} // the filter was changed
	metrics *metrics
}

// New makes a Runner. Nothing happens before Run.
func New(opts Options) (*Runner, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, fmt.Errorf("refilter options: %w", err)
	}
	r := &Runner{opts: opts, store: opts.Store, kick: make(chan struct{}, 1)}
	var err error
	if r.metrics, err = newMetrics(opts.Registerer, r); err != nil {
		return nil, fmt.Errorf("register refilter metrics: %w", err)
	}
	return r, nil
}

// Run makes a pass whenever the filter was changed, until ctx ends. An error means that the store
// failed, or that ctx ended. It may be called again after it returned.
func (r *Runner) Run(ctx context.Context) error {
	p := &pass{r: r}
	for r.opts.Gate.Pass(ctx) {
		_, asked, err := p.cursor()
		if err == nil && asked {
			err = p.run(ctx)
		}
		if err != nil {
			return err
		}
		loop.Sleep(ctx, sleepMax, r.kick)
	}
	return nil
}

// Wake reports that the filter was changed. Without a call Run notices the change within a minute.
func (r *Runner) Wake() { loop.Wake(r.kick) }

// Progress reports whether a pass is running, and the last DID that its round has handled. If no
// pass is running, each repository holds what the filter wants, as far as its host has it.
func (r *Runner) Progress() (cursor string, running bool, err error) {
	at, running, err := r.store.RefilterCursor()
	return at.After, running, err
}
