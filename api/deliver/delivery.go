package deliver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"cistern/api/clients"
	"cistern/api/deliver/format"
	"cistern/api/durable"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"
)

// Options of New. The zero value of a field takes the default.
type Options struct {
	// Log is the log that streams read, and Epoch the epoch of its store. Required.
	Log   Log
	Epoch string
	// Archived reports whether Log reads the event of an id from an archive, slowly. Default: none.
	Archived func(id uint64) bool
	// Records are what snapshots read. Default: snapshots are refused, as by a store that keeps
	// events only.
	Records Records
	// Subscriptions are the durable subscriptions that Durable serves. Default: none, and Durable
	// must not be called.
	Subscriptions *durable.Registry
	// Logger. Default: discard.
	Logger *slog.Logger
	// Registerer takes the metrics. Default: a private registry.
	Registerer prometheus.Registerer
	// Refused counts records without a JSON form. Default: a counter that is not registered.
	Refused prometheus.Counter
	// Watch is called with every error that ended a stream. Default: nothing.
	Watch func(error)
	// Refusal returns the name and the message of an error that ends a stream, the same as in
	// answers to requests. Required.
	Refusal func(error) (name, message string)

	// SubscribersMax bounds open streams. Each takes about 20 KiB, and the page that is being sent
	// unless other streams share it. Default 1,000.
	SubscribersMax int
	// WriteTimeout is how long a subscriber may leave a page unread. Default 30 s.
	WriteTimeout time.Duration
	// PageBytes is the size at which a page of events ends. Default 128 KiB.
	PageBytes int
	// PageEvents bounds the ids passed by one page. Default 2,000.
	PageEvents int
	// SharedBytes bounds the pages kept for sharing, including their encodings in all formats.
	// Default 32 MiB.
	SharedBytes int
	// Jetstream1Dictionary is the zstd dictionary that clients of version 1 of Jetstream have built
	// in. Default: none, and these streams are not compressed.
	Jetstream1Dictionary []byte
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	if o.Refused == nil {
		o.Refused = prometheus.NewCounter(prometheus.CounterOpts{Name: "refused"})
	}
	if o.Archived == nil {
		o.Archived = func(uint64) bool { return false }
	}
	if o.Watch == nil {
		o.Watch = func(error) {}
	}
	o.SubscribersMax = cmp.Or(o.SubscribersMax, 1000)
	o.WriteTimeout = cmp.Or(o.WriteTimeout, 30*time.Second)
	o.PageBytes = cmp.Or(o.PageBytes, 128<<10)
	o.PageEvents = cmp.Or(o.PageEvents, 2000)
	o.SharedBytes = cmp.Or(o.SharedBytes, 32<<20)
	return o
}

func (o Options) validate() error {
	var errs []error
	if o.Log == nil || o.Refusal == nil {
		errs = append(errs, errors.New("deliver needs a log and the names of errors"))
	}
	for _, f := range []struct {
		name string
		n    int64
	}{
		{"subscribers", int64(o.SubscribersMax)}, {"write timeout", int64(o.WriteTimeout)},
		{"page bytes", int64(o.PageBytes)}, {"page events", int64(o.PageEvents)},
		{"shared bytes", int64(o.SharedBytes)},
	} {
		if f.n < 0 {
			errs = append(errs, fmt.Errorf("deliver: %s %d is negative", f.name, f.n))
		}
	}
	return errors.Join(errs...)
}

// Delivery serves streams of the event log.
type Delivery struct {
	log          Log
	epoch        string
	pages        *pages
	places       *clients.Places     // of subscribers
	slots        *semaphore.Weighted // acquired by each subscriber, so that Wait can wait for all
	held         *clients.Turns      // acquired by the bytes of long pages that are being sent
	filters      *clients.Turns      // acquired by the bytes of filters
	messages     *clients.Turns      // one for each message of a consumer being understood
	max          int64
	writeTimeout time.Duration
	logger       *slog.Logger
	metrics      *metrics
	watch        func(error)
	refusal      func(error) (name, message string)

	formats       *format.Set
	subscriptions *durable.Registry

	records   Records
	snapshots *clients.Turns // one for each page of a snapshot being read
}

// New returns a Delivery, whose handlers serve streams.
func New(o Options) (*Delivery, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	m, err := newMetrics(o.Registerer, o.Refused)
	if err != nil {
		return nil, err
	}
	formats, err := format.NewSet(o.Epoch, o.Jetstream1Dictionary)
	if err != nil {
		return nil, err
	}
	p := &pages{log: o.Log, pageBytes: o.PageBytes, pageIDs: o.PageEvents, bytesMax: o.SharedBytes,
		metrics: m, readers: semaphore.NewWeighted(readersMax),
		atHead:   semaphore.NewWeighted(headReadersMax),
		archived: semaphore.NewWeighted(archivedReadersMax), isArchived: o.Archived,
		byID: map[uint64]*sharedPage{}}
	return &Delivery{log: o.Log, epoch: o.Epoch, pages: p,
		slots: semaphore.NewWeighted(int64(o.SubscribersMax)),
		places: clients.NewPlaces(o.SubscribersMax, o.SubscribersMax/streamsReserve,
			max(1, o.SubscribersMax/streamsShare)),
		filters: clients.NewTurns(filterBytesMax),
		held:    clients.NewTurns(heldBytesMax), messages: clients.NewTurns(messagesMax),
		max:          int64(o.SubscribersMax),
		writeTimeout: o.WriteTimeout, logger: o.Logger, metrics: m, watch: o.Watch,
		refusal: o.Refusal, formats: formats, subscriptions: o.Subscriptions,
		records: o.Records, snapshots: clients.NewTurns(snapshotReadersMax)}, nil
}

// Wait waits until no stream is open. Meanwhile, none can be opened.
func (d *Delivery) Wait(ctx context.Context) error {
	if err := d.slots.Acquire(ctx, d.max); err != nil {
		return err
	}
	d.slots.Release(d.max)
	return nil
}
