package maintain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Space is what an operation does to the space on disk.
type Space int

const (
	Neutral  Space = iota // neither frees nor consumes space that matters
	Frees                 // frees space: goes first while the disk is short
	Consumes              // consumes space: does not run while the disk is short
)

const (
	// operationsMax bounds the operations of one coordinator. There are about ten.
	operationsMax = 64
	// waitersMax bounds the callers of Await that wait for one operation. Each costs a request of
	// the caller and about 100 bytes.
	waitersMax = 1024
	// needsMax bounds how often one run needs another operation. No operation has more than two
	// prerequisites; a larger number is an operation that never proceeds.
	needsMax = 8
	// errorBytesMax bounds the text of an error that is kept.
	errorBytesMax = 1024
	// retryMin is the delay of a scheduled operation after its first failure. Each further failure
	// doubles it, up to retryMax and to the period of the operation.
	retryMin = time.Minute
	retryMax = 6 * time.Hour
	// reliefEvery is how often operations that free space run again while the disk stays short.
	reliefEvery = time.Minute
	// wakeMax bounds a sleep of the coordinator, so that a step of the clock is noticed.
	wakeMax = time.Minute
)

// Operation is one kind of maintenance.
type Operation struct {
	// Name identifies the operation in requests, rows and errors. Required.
	Name string
	// Space is what the operation does to the space on disk. Default Neutral.
	Space Space
	// Alone has the operation run without any other one. While another operation needs it first,
	// nothing else begins.
	Alone bool
	// Every is the time from one success to the next scheduled run. Default 0: only on request.
	Every time.Duration
	// Hours are the hours of the day in which a scheduled run may begin. A run on request begins at
	// any time, and an interrupted one continues at any time. Default: all day.
	Hours Hours
	// Last returns when the newest success began, the zero time if there was none. It is for an
	// operation whose results are kept where they outlive the row of the operation, or come from
	// elsewhere too: Every counts from there, and not from the end of the last success. A run that
	// nothing but the schedule requested asks before its work, and does none if it is not due; so
	// does the first one after each start. An error is that of the run. Default: nothing is asked.
	Last func(ctx context.Context) (time.Time, error)
	// Run does the work, item by item, and keeps what it has done in a place of its own. It returns
	// nil only if the work is complete. When ctx ends it stops after the current item and returns
	// the error of ctx; a later call continues the work. It returns Needs(name) if another operation
	// must run first, and is called again after it. It must not call Await or Pause. Required.
	Run func(ctx context.Context, p *Progress) error
}

// Options of New.
type Options struct {
	// Operations are all operations, at most 64. Required.
	Operations []Operation
	// Together are the pairs of operations that may run at the same time. Any other two exclude
	// each other.
	Together []Pair
	// Keeper keeps rows across restarts. Required.
	Keeper Keeper

	// Location is where the hours of the day are those of Operation.Hours. Default time.Local.
	Location *time.Location
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Logger takes beginnings and results. Default: discard.
	Logger *slog.Logger
	// Registerer takes the metrics. Default: a private registry.
	Registerer prometheus.Registerer
}

func (o Options) withDefaults() Options {
	if o.Location == nil {
		o.Location = time.Local
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	return o
}

func (o Options) validate() error {
	var all []error
	if n := len(o.Operations); n == 0 || n > operationsMax {
		all = append(all, fmt.Errorf("%d operations: want 1 to %d", n, operationsMax))
	}
	if o.Keeper == nil {
		all = append(all, errors.New("no keeper"))
	}
	seen := map[string]bool{}
	for _, op := range o.Operations {
		switch {
		case op.Name == "" || seen[op.Name]:
			all = append(all, fmt.Errorf("operation %q: its name is empty or taken", op.Name))
		case op.Run == nil:
			all = append(all, fmt.Errorf("operation %q: it has no function", op.Name))
		case op.Space < Neutral || op.Space > Consumes:
			all = append(all, fmt.Errorf("operation %q: unknown space %d", op.Name, op.Space))
		case op.Every < 0:
			all = append(all, fmt.Errorf("operation %q: negative period %s", op.Name, op.Every))
		}
		if err := op.Hours.validate(); err != nil {
			all = append(all, fmt.Errorf("operation %q: %w", op.Name, err))
		}
		seen[op.Name] = true
	}
	return errors.Join(all...)
}
