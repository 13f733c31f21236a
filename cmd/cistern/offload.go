package main

import (
	"time"

	"cistern/api/deliver"
	"cistern/archive"
)

// offloadEvery is the default period of offload; --schedule sets another. A segment has at most 16
// MiB, so a quiet network gets one small segment each time.
const offloadEvery = time.Hour

// newArchive returns the archive of --offload; nil without it.
func newArchive(d *daemon) (*archive.Archive, error) {
	if d.cfg.OffloadTo == nil {
		return nil, nil
	}
	o := archive.Options{Store: d.store, Destination: d.cfg.OffloadTo, After: d.cfg.OffloadAfter,
		Logger: d.log}
	if d.tune.archive != nil {
		d.tune.archive(&o)
	}
	return archive.New(o)
}

// eventLog returns the log that consumers read, and what says whether an event of it is in the
// archive; nil for the log of the store.
func eventLog(a *archive.Archive) (log deliver.Log, archived func(id uint64) bool) {
	if a == nil {
		return nil, nil
	}
	return a, a.Archived
}
