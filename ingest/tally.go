package ingest

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// outcome is what became of an event.
type outcome uint8

const (
	outcomeApplied   outcome = iota // written: records, rev, status or identity
	outcomeBuffered                 // kept until the copy that is being made is complete
	outcomeSeen                     // its rev is remembered; the copy to be made will hold it
	outcomeTracked                  // its repository is followed from now on
	outcomeSkipped                  // known already, or of nobody we follow
	outcomeDesynced                 // does not fit what we hold: the repository is fetched again
	outcomeRejected                 // invalid
	outcomeRefused                  // its host does not speak for the account
	outcomeFailed                   // its identity could not be found out: the repository is fetched again
	outcomePostponed                // beyond its budget: the account stays hidden for a while, or the document is read later
	outcomes

	// The event is not done:
	outcomeAgain // its row is not what it was: prepare it again
	outcomePark  // its DID waits for an errand
)

var outcomeNames = [outcomes]string{"applied", "buffered", "seen", "tracked", "skipped", "desynced", "rejected", "refused", "failed", "postponed"}

// Reasons for which events are rejected, beside those of rejection.
const (
	reasonRev      = "rev"      // no TID
	reasonFuture   = "future"   // a rev in the future
	reasonDID      = "did"      // no DID
	reasonIdentity = "identity" // no usable document
	reasonLimit    = "limit"    // too many collections or hidden keys
)

// tally counts what shards do.
type tally struct {
	events    [jobs][outcomes]prometheus.Counter
	rejected  *prometheus.CounterVec // reason
	refetches *prometheus.CounterVec // due: now, later
	folded    prometheus.Counter
}

func newTally(reg prometheus.Registerer, r *Runner) (*tally, error) {
	events := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: metricPrefix + "events_total", Help: "Events handled, by kind and by what became of them.",
	}, []string{"kind", "outcome"})
	t := &tally{
		rejected:  vec("rejected_total", "Events that were invalid, by the reason.", "reason", reasonRev, reasonFuture, reasonDID, reasonIdentity, reasonLimit),
		refetches: vec("refetches_total", "Repositories queued to be fetched again, because an event did not fit.", "due", "now", "later"),
		folded:    counter("folded_total", "Events of which only a rev or a newer one was kept, because too many waited for an identity."),
	}
	for j := range jobs {
		for o := range outcomes {
			t.events[j][o] = events.WithLabelValues(jobNames[j], outcomeNames[o])
		}
	}
	for _, c := range []prometheus.Collector{
		events, t.rejected, t.refetches, t.folded,
		gauge("queued_events", "Events read that no shard has taken yet.", r.queued),
		gauge("parked_repos", "Repositories whose events wait for the network.", r.parked),
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register: %w", err)
		}
	}
	return t, nil
}
