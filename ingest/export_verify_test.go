package ingest

import (
	"time"

	"cistern/ingest/frame"
	"cistern/ingest/repo"
	"cistern/store"
)

// Proof is proof for tests.
type Proof struct{ p proof }

func (p *Proof) Read(f *frame.Frame, now time.Time) error     { return p.p.read(f, now) }
func (p *Proof) ReadSync(f *frame.Frame, now time.Time) error { return p.p.readSync(f, now) }
func (p *Proof) Signed(key *repo.Key) error                   { return p.p.signed(key) }
func (p *Proof) Claimed() error                               { return p.p.claimed() }
func (p *Proof) Writes(dst []store.Op) []store.Op             { return p.p.writes(dst) }
func (p *Proof) Whole() bool                                  { return p.p.whole }
func (p *Proof) Commit() repo.Commit                          { return p.p.commit }

func (p *Proof) Before(held func(path []byte) (repo.CID, error)) (repo.CID, error) {
	return p.p.before(held)
}

// Rejection is rejection.
func Rejection(err error) string { return rejection(err) }

// The limits of documents that are read.
const (
	OutageFailures = outageFailures
	HeldKeyMax     = heldKeyMax
	RereadBurst    = rereadBurst
)
