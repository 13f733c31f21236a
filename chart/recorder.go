package chart

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"cistern/loop"
)

const (
	// stepUsual is the default of Options.Step: shortPoints of it are an hour.
	stepUsual   = 10 * time.Second
	shortPoints = 360
	// longSteps is how many steps of the short range are one step of the long range, five minutes:
	// longPoints of them are a day. Both ranges of one series take 2.6 KB.
	longSteps  = 30
	longPoints = 288
	// seriesMax bounds the series: 64 × 2.6 KB.
	seriesMax = 64
)

// Series is a figure that is recorded.
type Series struct {
	Name string
	// Counter means that the figure only grows; its growth per second is recorded.
	Counter bool
	// Peak means that a point of the day is the highest value of its time. It is the mean
	// otherwise.
	Peak bool
}

// Options of New.
type Options struct {
	// Series are what is recorded. Required.
	Series []Series
	// Read returns the figures of now, in the order of Series; NaN for a figure that is unknown.
	// One goroutine calls it. Required.
	Read func() []float64
	// Step is the time between two points of the last hour. Default 10 s.
	Step time.Duration
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Recorder records series.
type Recorder struct {
	opts Options

	// owned by Run:
	last   []float64 // the figures of the look before
	lastAt time.Time // zero before the first look

	// mu guards:
	mu          sync.Mutex
	short, long *ring
	folds       []fold // of the newest slot of long, by series
}

// fold summarizes the known values of one point of the long range.
type fold struct {
	sum, highest float64
	n            int
}

// New returns a Recorder. It starts nothing: call Run.
func New(o Options) (*Recorder, error) {
	o.Step = cmp.Or(o.Step, stepUsual)
	if o.Now == nil {
		o.Now = time.Now
	}
	if n := len(o.Series); n == 0 || n > seriesMax || o.Read == nil || o.Step < time.Millisecond {
		return nil, fmt.Errorf("charts need 1 to %d series, got %d, a function that reads them, and "+
			"a step of a millisecond or more, got %s", seriesMax, n, o.Step)
	}
	n := len(o.Series)
	return &Recorder{opts: o, short: newRing(n, shortPoints, o.Step),
		long: newRing(n, longPoints, longSteps*o.Step), folds: make([]fold, n)}, nil
}

// Run records until ctx ends, once in each step. It returns nil.
func (r *Recorder) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		r.Look()
		// The next slot begins at a multiple of the step, whatever a look takes.
		past := time.Duration(r.opts.Now().UnixNano() % int64(r.opts.Step))
		loop.Sleep(ctx, r.opts.Step-past, nil)
	}
	return nil
}

// Look reads the figures once, and records them for the present step. Only Run and tests call it.
func (r *Recorder) Look() {
	now, figures := r.opts.Now(), r.opts.Read()
	values := make([]float64, len(figures))
	for i, s := range r.opts.Series {
		values[i] = figures[i]
		if s.Counter {
			values[i] = r.growth(i, figures[i], now)
		}
	}
	r.last, r.lastAt = figures, now

	r.mu.Lock()
	defer r.mu.Unlock()
	r.short.advance(now)
	before := r.long.newest
	if r.long.advance(now); r.long.newest != before {
		clear(r.folds)
	}
	for i, v := range values {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			continue
		}
		*r.short.at(i, r.short.newest) = float32(v)
		f := &r.folds[i]
		if f.highest = max(f.highest, v); f.n == 0 {
			f.highest = v
		}
		f.sum, f.n = f.sum+v, f.n+1
		if v = f.sum / float64(f.n); r.opts.Series[i].Peak {
			v = f.highest
		}
		*r.long.at(i, r.long.newest) = float32(v)
	}
}

// growth returns the growth per second of a counter since the look before, NaN if that is unknown.
func (r *Recorder) growth(i int, figure float64, now time.Time) float64 {
	seconds := now.Sub(r.lastAt).Seconds()
	if r.lastAt.IsZero() || seconds <= 0 {
		return math.NaN()
	}
	return max(0, figure-r.last[i]) / seconds // NaN if either figure is
}

// Series returns the series, in the order of Views. Callers do not change the slice.
func (r *Recorder) Series() []Series { return r.opts.Series }

// Hour returns the points of the last hour from the step of since on.
func (r *Recorder) Hour(since time.Time) View {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.short.since(since)
}

// Day is like Hour for the last day. Its newest point changes until its step has passed.
func (r *Recorder) Day(since time.Time) View {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.long.since(since)
}
