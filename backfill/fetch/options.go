package fetch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"cistern/ingest/repo"

	"github.com/prometheus/client_golang/prometheus"
)

// Keys finds former keys of accounts. It is safe for concurrent use. Its errors are those of
// package identity; any other error is transient.
type Keys interface {
	// KeysAt returns the keys of a did:plc that were in force within minutes of a time and that
	// its document no longer names.
	KeysAt(ctx context.Context, did string, at time.Time) ([]*repo.Key, error)
}

// Options configures a Copier. Keys and Crowded are required.
type Options struct {
	Keys Keys
	// Crowded reports whether repositories wait for a permit of a host that may be asked, and no
	// permit is free.
	Crowded func() bool
	// UserAgent is sent with every request. Default "cistern".
	UserAgent string

	// Strategy is how a repository is fetched when the filter wants only some collections. Default
	// StrategyAuto.
	Strategy Strategy
	// Unsigned leaves signatures unchecked.
	Unsigned bool

	// Concurrency is the number of repositories fetched at a time. Default 32.
	Concurrency int
	// MemoryBytes bounds the bodies held in memory by all copies, and the windows of zstd decoders.
	// Default 128 MiB; at least 512 KiB for each of Concurrency.
	MemoryBytes int64
	// RepoMemoryBytes is how much of one body is held in memory before it is spooled. Default 32 MiB:
	// with 96 a repository of 250,000 records takes a tenth less CPU and the process half as much
	// memory again (BENCHMARKS.md, Memory).
	RepoMemoryBytes int64
	// SpoolDir takes the bodies that do not fit. Default: the system's directory for temporary files.
	SpoolDir string
	// SpoolBytes bounds the spools of all copies. Default four times CARBytesMax, 16 GiB.
	SpoolBytes int64
	// CARBytesMax bounds one repository, at most 16 GiB. Default 4 GiB.
	CARBytesMax int64
	// CARBlocksMax bounds its blocks, whose index takes 8 to 16 bytes each. Default one for each
	// 512 bytes of CARBytesMax: 8,388,608, or 6.5 million records.
	CARBlocksMax int

	// FetchTimeout bounds one getRepo, headers to last byte. Default 6h: 4 GiB at 200 KB/s.
	// IdleTimeout ends a fetch that makes no progress. While repositories wait, three quarters
	// of Concurrency may take more than five minutes.
	FetchTimeout time.Duration
	// IdleTimeout is the time in which 64 KiB, or the rest of the body, must arrive. Default 30s.
	IdleTimeout time.Duration

	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Logger takes why the whole was fetched in place of parts. Default: discard.
	Logger *slog.Logger
	// Registerer takes the metrics. Default: a private registry.
	Registerer prometheus.Registerer
}

func (o Options) withDefaults() Options {
	o.UserAgent = cmp.Or(o.UserAgent, "cistern")
	o.Concurrency = cmp.Or(o.Concurrency, 32)
	o.MemoryBytes = cmp.Or(o.MemoryBytes, 128<<20)
	o.RepoMemoryBytes = cmp.Or(o.RepoMemoryBytes, 32<<20)
	o.CARBytesMax = cmp.Or(o.CARBytesMax, 4<<30)
	o.CARBlocksMax = cmp.Or(o.CARBlocksMax, int(o.CARBytesMax/bytesPerBlock))
	o.SpoolBytes = cmp.Or(o.SpoolBytes, 4*o.CARBytesMax)
	o.FetchTimeout = cmp.Or(o.FetchTimeout, 6*time.Hour)
	o.IdleTimeout = cmp.Or(o.IdleTimeout, 30*time.Second)
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

// longMax returns how many transfers may be long while repositories wait.
func (o Options) longMax() int { return max(1, o.Concurrency*longShare/100) }

// zstdBodies is how many zstd bodies may be open at a time.
func (o Options) zstdBodies() int64 {
	return min(zstdBodiesMax, (o.MemoryBytes-int64(o.Concurrency)*baseBytes)/3/zstdBytes)
}

// bodyBytes returns the shared memory budget for bodies, in addition to what each copy may always
// use.
func (o Options) bodyBytes() int64 {
	return o.MemoryBytes - int64(o.Concurrency)*baseBytes - o.zstdBodies()*zstdBytes
}

func (o Options) validate() error {
	var errs []error
	if o.Keys == nil || o.Crowded == nil {
		errs = append(errs, errors.New("a required field is missing"))
	}
	if int(o.Strategy) >= len(strategies) {
		errs = append(errs, fmt.Errorf("strategy %d is unknown", o.Strategy))
	}
	for _, f := range []struct {
		name string
		n    int64
	}{
		{"concurrency", int64(o.Concurrency)}, {"memory bytes", o.MemoryBytes},
		{"memory bytes per repository", o.RepoMemoryBytes}, {"spool bytes", o.SpoolBytes},
		{"CAR bytes", o.CARBytesMax}, {"CAR blocks", int64(o.CARBlocksMax)},
		{"fetch timeout", int64(o.FetchTimeout)}, {"idle timeout", int64(o.IdleTimeout)},
	} {
		if f.n < 1 {
			errs = append(errs, fmt.Errorf("%s %d is not positive", f.name, f.n))
		}
	}
	if need := int64(o.Concurrency) * baseBytes; o.MemoryBytes < need {
		errs = append(errs, fmt.Errorf("memory bytes %d are less than the %d that %d tasks take at least",
			o.MemoryBytes, need, o.Concurrency))
	}
	if o.CARBytesMax > carBytesCeiling {
		errs = append(errs, fmt.Errorf("CAR bytes %d are more than %d",
			o.CARBytesMax, int64(carBytesCeiling)))
	}
	return errors.Join(errs...)
}
