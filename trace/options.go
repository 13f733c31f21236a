package trace

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// queueMax bounds the spans that wait to be sent, at about 2 KiB each. A trace has about five.
	queueMax = 4096
	// batchMax bounds the spans of one request.
	batchMax = 512
	// sendEvery is how long a span waits at most for others to be sent with it.
	sendEvery = 2 * time.Second
	// sendTimeout bounds one request, and flushTimeout all of those after Run's context ended: a
	// collector that hangs must not use up the time that the daemon has to stop.
	sendTimeout  = 10 * time.Second
	flushTimeout = 3 * time.Second
	// textBytesMax bounds a text in a span. A DID may have 2 KiB, and hosts choose error texts.
	textBytesMax = 256
)

// Options of New.
type Options struct {
	// Endpoint is the URL that takes OTLP over HTTP, such as http://localhost:4318. Without a path
	// it is that of /v1/traces. Required.
	Endpoint string
	// Share is the part of all fetches and commits that is traced, above 0 and up to 1. Required.
	Share float64
	// Version is that of the daemon.
	Version string
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Logger takes word of a collector that fails, and that takes spans again. Default: discard.
	Logger *slog.Logger
	// Registerer takes the metrics. Default: a private registry.
	Registerer prometheus.Registerer
}

func (o Options) withDefaults() Options {
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
	var errs []error
	if o.Endpoint == "" {
		errs = append(errs, errors.New("no endpoint"))
	}
	if !(o.Share > 0 && o.Share <= 1) {
		errs = append(errs, fmt.Errorf("share %v is not above 0 and up to 1", o.Share))
	}
	return errors.Join(errs...)
}
