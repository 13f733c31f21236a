package verify

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"cistern/store"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// pageRepos is the number of rows that are read at a time to find the next copies: about 1 KiB
	// each.
	pageRepos = 256
	// saveEvery is how often the place of the walk is written, each time with a sync of the disk.
	// A crash repeats what came after.
	saveEvery = 10 * time.Second
	// restMin is the work after which the walk rests: shorter rests would mostly be spent on timers.
	restMin = 10 * time.Millisecond
	// looksMax bounds the looks at a repository that changes under each of them.
	looksMax = 4
	// stepsMax bounds the steps that repair one repository: each examines it once more. 64 steps
	// delete a quarter of a million damaged records.
	stepsMax = 64
	// linesMax bounds the log lines of one walk about damaged repositories.
	linesMax = 1000
	// fetchedMax bounds the repositories, of some 100 bytes each, of which the rev is remembered
	// that was queued for another copy. Beyond it all are forgotten.
	fetchedMax = 10_000
	// firstBytesMax bounds the text of the first difference, as store.ErrorBytesMax does.
	firstBytesMax = store.ErrorBytesMax
)

// Options of New.
type Options struct {
	// Store is the store to verify. Required.
	Store *store.Store
	// Share is the part of the time in which the walk works, in percent of one CPU: 1 to 100. It
	// rests for the rest of the time. Default 25.
	Share int
	// Queued is called after a repository was queued for another copy. Default: nothing.
	Queued func()

	// Logger gets damaged repositories, and the beginning and end of a walk. Default: discard.
	Logger *slog.Logger
	// Registerer takes the metrics. Default: a private registry.
	Registerer prometheus.Registerer
}

// ShareDefault is the default of Options.Share.
const ShareDefault = 25

func (o Options) withDefaults() Options {
	if o.Share == 0 {
		o.Share = ShareDefault
	}
	if o.Queued == nil {
		o.Queued = func() {}
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
	var errs []error
	if o.Store == nil {
		errs = append(errs, errors.New("no store"))
	}
	if o.Share < 1 || o.Share > 100 {
		errs = append(errs, fmt.Errorf("a share of %d percent: want 1 to 100", o.Share))
	}
	return errors.Join(errs...)
}
