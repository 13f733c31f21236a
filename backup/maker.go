package backup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"cistern/loop"
	"cistern/objects"

	"github.com/prometheus/client_golang/prometheus"
)

// retryMax bounds the time until a backup that failed is tried again. The first wait is a sixteenth
// of it.
const retryMax = 16 * time.Minute

// ScheduleOptions are the options of NewSchedule.
type ScheduleOptions struct {
	// Destination, Keep and Holder are those of Options.
	Destination objects.Destination
	Keep        int
	Holder      string
	// Every is the time from the beginning of one backup to that of the next. Required.
	Every time.Duration
	// Epoch is that of the log that is backed up. Required.
	Epoch string
	// Checkpoint makes what is backed up; release removes it. Required.
	Checkpoint func(ctx context.Context) (src Source, release func() error, err error)
	// Logger. Default: discard.
	Logger *slog.Logger
	// Registerer takes the metrics. Default: a private registry.
	Registerer prometheus.Registerer
	// Seed varies the waits after failures.
	Seed uint64
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Schedule makes a backup every so often.
type Schedule struct {
	opts    ScheduleOptions
	metrics *metrics
	jitter  *loop.Jitter
}

// NewSchedule returns a schedule. It starts nothing: call Run.
func NewSchedule(o ScheduleOptions) (*Schedule, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Destination == nil || o.Checkpoint == nil || o.Every <= 0 || o.Keep < 0 || o.Epoch == "" {
		return nil, fmt.Errorf("backups need a destination, an epoch and checkpoints; every %s, keep %d",
			o.Every, o.Keep)
	}
	m, err := newMetrics(o.Registerer)
	return &Schedule{opts: o, metrics: m, jitter: loop.NewJitter(o.Seed)}, err
}

// Run makes backups until ctx ends. The destination says when the last one was, so that a restart
// neither skips one nor adds one. A failure is logged and tried again.
func (s *Schedule) Run(ctx context.Context) error {
	wait := retryMax / 16
	for ctx.Err() == nil {
		due, err := s.due(ctx)
		if err == nil {
			loop.Sleep(ctx, due.Sub(s.opts.Now()), nil)
			if ctx.Err() != nil {
				break
			}
			err = s.Once(ctx, nil)
		}
		if err == nil || ctx.Err() != nil {
			wait = retryMax / 16
			continue
		}
		s.metrics.failures.Inc()
		next := s.jitter.Vary(min(wait, s.opts.Every))
		s.opts.Logger.Warn("backup failed and is tried again", "destination",
			s.opts.Destination.String(), "wait", next.Round(time.Second), "err", err)
		loop.Sleep(ctx, next, nil)
		wait = min(2*wait, retryMax)
	}
	return nil
}

// due returns when the next backup is to begin.
func (s *Schedule) due(ctx context.Context) (time.Time, error) {
	all, err := List(ctx, s.opts.Destination)
	if err != nil {
		return time.Time{}, err
	}
	now := s.opts.Now()
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Epoch != s.opts.Epoch || all[i].Created.After(now) {
			continue
		}
		s.metrics.success.Set(float64(all[i].Created.Unix()))
		return all[i].Created.Add(s.opts.Every), nil
	}
	return now, nil
}

// Once makes one backup now, whatever the schedule says. progress may be nil.
func (s *Schedule) Once(ctx context.Context, progress func(Progress)) (err error) {
	begun := s.opts.Now()
	src, release, err := s.opts.Checkpoint(ctx)
	if err != nil {
		return err
	}
	res, err := Run(ctx, Options{Destination: s.opts.Destination, Source: src, Keep: s.opts.Keep,
		Holder: s.opts.Holder, Progress: progress, Now: s.opts.Now})
	err = errors.Join(err, release())
	s.metrics.uploaded.Add(float64(res.Uploaded))
	if res.Generation.Name != "" { // also if older ones could not be deleted
		s.metrics.success.Set(float64(res.Generation.Created.Unix()))
	}
	if err != nil {
		return err
	}
	s.metrics.seconds.Set(s.opts.Now().Sub(begun).Seconds())
	s.opts.Logger.Info("backup complete", "destination", s.opts.Destination.String(),
		"generation", res.Generation.Name, "head", res.Generation.Head,
		"bytes", res.Generation.Bytes, "uploaded", res.Uploaded, "deleted", res.Deleted)
	return nil
}
