package identity

import (
	"context"

	"cistern/loop"
)

// Faults returns the PLC directories that do not answer enough requests, in the order of
// Options.PLC.
func (d *Directory) Faults() []Fault { return d.plc.faults() }

// Run asks each PLC directory that fails, every Options.ProbeEvery, until ctx ends. So a fault
// begins and ends also if nothing is looked up meanwhile. It returns nil.
func (d *Directory) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		loop.Sleep(ctx, d.opts.ProbeEvery, nil)
		d.probe(ctx)
	}
	return nil
}

// probe asks the directories that fail, one after the other. Each gets as much time as in a lookup:
// one that is too slow for lookups fails.
func (d *Directory) probe(ctx context.Context) {
	bases, _ := d.plc.order()
	within := d.share(len(bases))
	for _, p := range d.plc.probes() {
		ctx, cancel := d.limited(ctx)
		// ask notes the result.
		_, _ = d.ask(ctx, within, p.base, p.did, "", d.opts.BodyMax)
		cancel()
	}
}
