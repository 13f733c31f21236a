package main

import (
	"context"
	"time"

	"cistern/phase"

	"github.com/dustin/go-humanize/english"
)

// parkedPatience is how long a phase waits for events that were read and whose accounts' documents
// are being asked for: while no directory answers, that takes minutes. No cursor has passed them.
const parkedPatience = 30 * time.Second

// newPhases makes the keeper of the phase. What it shuts and waits for are the parts that work over
// the network; api serves what is stored in every phase.
func (d *daemon) newPhases() (err error) {
	suspended := ""
	if d.cfg.ReadOnly {
		suspended = "the daemon was started with --read-only"
	}
	d.phases, err = phase.New(phase.Options{
		Parts: []phase.Part{
			{Name: "firehose", Gate: &d.gates.firehose, Busy: d.firehoseBusy,
				Patience: parkedPatience},
			// A listing may take hours, so that it is cut. It goes on from its last page.
			{Name: "crawler", Gate: &d.gates.crawler, Halts: true,
				Busy: func() string { return busy(d.gates.crawler.Working(), "run") }},
			{Name: "backfill", Gate: &d.gates.backfill,
				Busy: func() string { return busy(d.backfill.Syncing(), "repository") }},
			{Name: "webhooks", Gate: &d.gates.webhooks,
				Busy: func() string { return busy(d.gates.webhooks.Working(), "request") }},
		},
		Suspended: suspended, Freeze: d.freeze, Thaw: d.thaw,
		Thawed: func() error { return d.api.SavePositions() }, // newAPI makes d.api later
		Logger: d.log, Registerer: d.metrics,
	})
	return err
}

// freeze stops maintenance, and then all writes.
func (d *daemon) freeze(ctx context.Context) error {
	err := d.maintain.Pause(ctx, "the daemon is suspended")
	if err == nil {
		err = d.store.Freeze(ctx)
	}
	if err != nil {
		d.resumeMaintenance()
	}
	return err
}

func (d *daemon) thaw() {
	d.store.Thaw()
	d.resumeMaintenance()
}

// resumeMaintenance ends a pause of maintenance, unless it is to end.
func (d *daemon) resumeMaintenance() {
	if !d.ending.Load() {
		d.maintain.Resume()
	}
}

// busy returns how much work is in flight, "" for none.
func busy(n int, what string) string {
	if n == 0 {
		return ""
	}
	return english.Plural(n, what, "") + " in flight"
}

// firehoseBusy returns what is left of the firehose when it is shut.
func (d *daemon) firehoseBusy() string {
	connections, events := d.sources.InFlight()
	if connections > 0 {
		return busy(connections, "connection")
	}
	return busy(events, "event")
}

// suspend makes everything durable and keeps writes from the disk, at the end of the daemon:
// closing the store has nothing left to save. If there is no time for it, the store recovers what
// is missing from its log when it is opened.
func (d *daemon) suspend(ctx context.Context, end time.Time) {
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	if err := d.store.Freeze(ctx); err != nil {
		d.log.Warn("the daemon ends before it was suspended", "err", err)
		return
	}
	d.log.Info("the phase has changed", "phase", phase.Suspended.String(),
		"from", phase.Draining.String())
}
