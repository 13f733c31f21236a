package main

import (
	"log/slog"
	"time"

	"cistern/api/deliver"
	"cistern/archive"
	"cistern/store"
)

// offloadEvery is how often events are moved that have become old enough, unless --schedule says
// otherwise. A segment has at most 16 MiB, so that quiet networks get one small segment each time.
const offloadEvery = time.Hour

// newArchive returns the archive of --offload; nil without it.
func newArchive(cfg *Config, s *store.Store, log *slog.Logger) (*archive.Archive, error) {
	if cfg.OffloadTo == nil {
		return nil, nil
	}
	return archive.New(archive.Options{Store: s, Destination: cfg.OffloadTo,
		After: cfg.OffloadAfter, Logger: log})
}

// eventLog returns the log that consumers read, and what says whether an event of it is in the
// archive; nil for the log of the store.
func eventLog(a *archive.Archive) (log deliver.Log, archived func(id uint64) bool) {
	if a == nil {
		return nil, nil
	}
	return a, a.Archived
}
