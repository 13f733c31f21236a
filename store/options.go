package store

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
)

// Options of Open. The zero value of a field takes the default.
type Options struct {
	// Dir holds everything. Required.
	Dir string
	// FS is the file system. Default: the operating system's.
	FS vfs.FS
	// MustExist has Open fail with ErrNotFound rather than create a store.
	MustExist bool
	// ReadOnly opens an existing store for Check and reads; nothing is written.
	ReadOnly bool

	// HostsMax bounds the hosts that get an id, each some 100 bytes on disk and 200 in memory. A
	// new host takes the place of the host that has been idle longest, if no repository names it
	// and no ban or limit is set for it; if there is no such host, the new one stays unknown. The
	// network has some thousands of hosts, but the owner of any DID can name one: the hosts of one
	// domain, and all addresses together, get a 64th of the ids. Default 262,144.
	HostsMax int64

	// Retention is how long events stay in the log. Default 0: for ever. The store counts elapsed
	// time (retention.go): a step of the clock that is longer than Retention is left out, and so is
	// a longer time during which the store was closed.
	Retention time.Duration
	// RetentionBytes is how large the log may become: its oldest events beyond that size are pruned,
	// however young they are. Counted are its rows before compression, and superseded blocks at
	// their mean size on disk. It is looked at every minute, and pruned to within 1/256. Default 0:
	// any size.
	RetentionBytes int64

	// SubscriptionRetention is how long events stay in the log that a durable subscription has not
	// acknowledged, if Retention is shorter. With RetentionBytes such events may take that size once
	// more. Beyond it they are pruned, and the subscription has a gap. Default 0: subscriptions
	// keep nothing.
	SubscriptionRetention time.Duration

	// SnapshotRetention is how long the events after the beginning of a snapshot stay in the log, if
	// Retention is shorter, or RetentionBytes is reached. It bounds the time that a snapshot may
	// take, with all disconnects and restarts. A crash may lose it for a snapshot that began in the
	// last minute. Default 0: not at all.
	SnapshotRetention time.Duration

	// Archive has events stay in the log, whatever their age, until a segment of an archive has
	// them (AddSegment).
	Archive bool

	// Ephemeral makes a new store ephemeral (invariant 16), which it then is for good, and needs a
	// Retention or RetentionBytes. Open fails with ErrMode for an existing store of the other mode,
	// unless ReadOnly or MustExist is set: then the mode is the store's.
	Ephemeral bool

	// PruneEvery is how often the caller of Store.Prune calls it, and with it the resolution of
	// retention. Default a minute.
	PruneEvery time.Duration

	// CacheBytes is Pebble's block cache, beside one memtable. Default 32 MiB.
	CacheBytes int64
	// MemTableBytes is the size of one memtable; two may be full at a time. Default 16 MiB.
	MemTableBytes int64

	// GroupBytes closes an import group. Default 64 MiB.
	GroupBytes int64
	// GroupAge closes an import group that has not reached GroupBytes. Default 2 s: at some MB/s
	// the group is then worth ingesting as tables. The first groups of a burst are closed sooner. A
	// caller that cannot wait calls FlushImports.
	GroupAge time.Duration
	// SmallBytes is the size up to which a group is written by batches instead of tables. Default 8
	// MiB.
	SmallBytes int64
	// TableBytes cuts the tables of a group, in compressed bytes. Default 64 MiB.
	TableBytes int64

	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Logger takes Pebble's messages and our own. Default: discard.
	Logger *slog.Logger
	// Registerer takes the metrics. Default: a private registry.
	Registerer prometheus.Registerer
	// Step is called at the named steps of commits, imports, relists and collections, where tests
	// clone the file system. docs/architecture.md says what is durable at each. Default: nothing.
	Step func(name string)

	tune func(*pebble.Options) // set by benchmarks that compare engine options
	// chunkBits and bucketBits are set by tests. Defaults: chunkBits, bucketBits (postings.go).
	chunkBits, bucketBits uint8
}

func (o Options) withDefaults() Options {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.HostsMax == 0 {
		o.HostsMax = 256 << 10
	}
	if o.PruneEvery == 0 {
		o.PruneEvery = pruneInterval
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 32 << 20
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = 16 << 20
	}
	if o.GroupBytes == 0 {
		o.GroupBytes = 64 << 20
	}
	if o.GroupAge == 0 {
		o.GroupAge = 2 * time.Second
	}
	if o.SmallBytes == 0 {
		o.SmallBytes = 8 << 20
	}
	if o.TableBytes == 0 {
		o.TableBytes = 64 << 20
	}
	if o.chunkBits == 0 {
		o.chunkBits, o.bucketBits = chunkBits, bucketBits
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
	if o.Step == nil {
		o.Step = func(string) {}
	}
	return o
}

func (o Options) validate() error {
	var errs []error
	if o.Dir == "" {
		errs = append(errs, errors.New("store directory is empty"))
	}
	for _, f := range []struct {
		name string
		n    int64
	}{
		{"retention", int64(o.Retention)}, {"retention bytes", o.RetentionBytes},
		{"subscription retention", int64(o.SubscriptionRetention)},
		{"snapshot retention", int64(o.SnapshotRetention)},
		{"prune interval", int64(o.PruneEvery)},
		{"cache bytes", o.CacheBytes}, {"memtable bytes", o.MemTableBytes},
		{"group bytes", o.GroupBytes}, {"group age", int64(o.GroupAge)},
		{"small group bytes", o.SmallBytes}, {"table bytes", o.TableBytes},
	} {
		if f.n < 0 {
			errs = append(errs, fmt.Errorf("store %s %d is negative", f.name, f.n))
		}
	}
	if o.Ephemeral && o.Retention == 0 && o.RetentionBytes == 0 && !o.ReadOnly && !o.MustExist {
		errs = append(errs, errors.New("an ephemeral store needs a retention or retention bytes"))
	}
	return errors.Join(errs...)
}
