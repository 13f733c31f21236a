package ingest

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"cistern/filter"
	"cistern/ingest/identity"
	"cistern/store"

	"github.com/prometheus/client_golang/prometheus"
)

// Directory finds the host and the key of a DID. Safe for concurrent use; *identity.Directory is one.
type Directory interface {
	// Resolve may make requests. Errors are those of package identity; any other is transient.
	Resolve(ctx context.Context, did string) (identity.Identity, error)
	// Purge has the next Resolve ask anew.
	Purge(did string)
	// Cached makes no request.
	Cached(did string) (identity.Identity, bool)
	// Remember tells of an identity read earlier.
	Remember(ident identity.Identity, at time.Time)
}

// Options configures a Runner. Store and Directory are required.
type Options struct {
	Store     *store.Store
	Directory Directory

	// Sources are followed beside those that were added while running. URLs are normalised by ParseSource.
	Sources []store.Source
	// Filter says which unknown repositories are followed. Default: none.
	Filter *filter.Filter
	// SkipSignatures leaves out the check of commit signatures; rows say so. Default: they are checked.
	SkipSignatures bool
	// AllowPrivate permits addresses that are not public. For development only.
	AllowPrivate bool
	// UserAgent is sent with every request. Default "cistern".
	UserAgent string
	// Wake is called when rows were enqueued for a fetch. It must not block. Default: nothing.
	Wake func()

	// Shards is the number of queues. Default 8.
	Shards int
	// QueueBytes bounds the messages read and not yet handled. Default 64 MiB.
	QueueBytes int64
	// Lookups is the number of identities looked up at a time. Default 32.
	Lookups int

	// SilentAfter is how long a source may say nothing while others speak, before it is connected anew. Default 60s.
	SilentAfter time.Duration
	// ReadTimeout is how long nothing at all, not even a pong, may come from a socket. Default 45s; a ping is sent at a third of it.
	ReadTimeout time.Duration
	// RetryBase is the delay before the first reconnection; it doubles up to RetryMax, with jitter. Default 1s.
	RetryBase time.Duration
	// RetryMax is the longest delay. Default 1m.
	RetryMax time.Duration
	// RefetchBase is the delay after a repository's second chain break; it doubles up to an hour. Default 1m.
	RefetchBase time.Duration

	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Seed makes delays repeatable. Default 0, which is a seed too.
	Seed uint64
	// Logger takes state changes. Default: discard.
	Logger *slog.Logger
	// Registerer takes the metrics. Default: a private registry.
	Registerer prometheus.Registerer
}

var errNotWritten = errors.New("not written yet")
