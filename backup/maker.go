package backup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"cistern/objects"

	"github.com/prometheus/client_golang/prometheus"
)

// MakerOptions are the options of NewMaker.
type MakerOptions struct {
	// Destination, Keep and Holder are those of Options.
	Destination objects.Destination
	Keep        int
	Holder      string
	// Epoch is that of the log that is backed up. Required.
	Epoch string
	// Checkpoint makes what is backed up; release removes it. Required.
	Checkpoint func(ctx context.Context) (src Source, release func() error, err error)
	// Logger. Default: discard.
	Logger *slog.Logger
	// Registerer takes the metrics. Default: a private registry.
	Registerer prometheus.Registerer
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Maker makes the backups of a daemon. It makes one at a time.
type Maker struct {
	opts    MakerOptions
	metrics *metrics
}

// NewMaker returns a maker, and does nothing yet.
func NewMaker(o MakerOptions) (*Maker, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Destination == nil || o.Checkpoint == nil || o.Keep < 0 || o.Epoch == "" {
		return nil, fmt.Errorf("backups need a destination, an epoch and checkpoints; keep %d", o.Keep)
	}
	m, err := newMetrics(o.Registerer)
	return &Maker{opts: o, metrics: m}, err
}

// Last returns when the newest complete backup of this log was begun, the zero time if there is
// none. The destination says so, whichever program made the backup.
func (m *Maker) Last(ctx context.Context) (time.Time, error) {
	all, err := List(ctx, m.opts.Destination)
	if err != nil {
		return time.Time{}, err
	}
	now := m.opts.Now()
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Epoch == m.opts.Epoch && !all[i].Created.After(now) {
			m.metrics.success.Set(float64(all[i].Created.Unix()))
			return all[i].Created, nil
		}
	}
	return time.Time{}, nil
}

// Make makes a backup. progress may be nil. If ctx ends, the error is that of ctx, unless the
// backup was complete: then the next one deletes what Keep makes superfluous.
func (m *Maker) Make(ctx context.Context, progress func(Progress)) error {
	begun := m.opts.Now()
	res, err := m.run(ctx, progress)
	m.metrics.uploaded.Add(float64(res.Uploaded))
	complete := res.Generation.Name != "" // also if older ones could not be deleted
	if complete {
		m.metrics.success.Set(float64(res.Generation.Created.Unix()))
	}
	switch {
	case err != nil && ctx.Err() != nil && !complete:
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	case err != nil && ctx.Err() == nil:
		m.metrics.failures.Inc()
		return err
	}
	m.metrics.seconds.Set(m.opts.Now().Sub(begun).Seconds())
	m.opts.Logger.Info("backup complete", "destination", m.opts.Destination.String(),
		"generation", res.Generation.Name, "head", res.Generation.Head,
		"bytes", res.Generation.Bytes, "uploaded", res.Uploaded, "deleted", res.Deleted)
	return nil
}

// run makes a checkpoint, and a backup of it.
func (m *Maker) run(ctx context.Context, progress func(Progress)) (Result, error) {
	src, release, err := m.opts.Checkpoint(ctx)
	if err != nil {
		return Result{}, err
	}
	res, err := Run(ctx, Options{Destination: m.opts.Destination, Source: src, Keep: m.opts.Keep,
		Holder: m.opts.Holder, Progress: progress, Now: m.opts.Now})
	return res, errors.Join(err, release())
}
