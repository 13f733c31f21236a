package identity

import (
	"context"

	"cistern/loop"
)

// probeDID is what Run asks for: a DID in the right form that no account has. A directory that works
// answers 404.
const probeDID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"

// Faults returns the PLC directories that give no usable answers, in the order of Options.PLC.
func (d *Directory) Faults() []Fault { return d.plc.faults() }

// Run asks each PLC directory that fails, every Options.ProbeEvery, until ctx ends. So a fault ends
// soon after the directory is back, also if nothing is looked up meanwhile; and a fault about a
// single DID does not last. It returns nil.
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
	for _, base := range d.plc.suspects() {
		ctx, cancel := d.limited(ctx)
		// ask notes the result.
		_, _ = d.ask(ctx, within, base, probeDID, "", d.opts.BodyMax)
		cancel()
	}
}
