package ingest

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// outcome is the result of handling an event.
type outcome uint8

const (
	outcomeApplied  outcome = iota // written: records, rev, status or identity
	outcomeBuffered                // kept until the copy in flight is complete
	outcomeSeen                    // its rev is recorded; the coming copy will include it
	outcomeTracked                 // its repository is followed from now on
	outcomeSkipped                 // known already, or of a repository that is not followed
	outcomeDesynced                // does not fit our copy: the repository is fetched again
	outcomeRejected                // invalid
	outcomeRefused                 // its PDS is not the host of the account
	// its identity could not be found: the repository is fetched again
	outcomeFailed
	// beyond its budget: the account stays hidden for a while, or the document is read later
	outcomePostponed
	outcomes

	// the event is not done:
	outcomeAgain // its row has changed: prepare it again
	outcomePark  // its DID waits for a task
)

var outcomeNames = [outcomes]string{"applied", "buffered", "seen", "tracked", "skipped", "desynced",
	"rejected", "refused", "failed", "postponed"}

// Reasons for which events are rejected, in addition to those of rejection.
const (
	reasonRev      = "rev"      // not a TID
	reasonFuture   = "future"   // a rev in the future
	reasonDID      = "did"      // not a DID
	reasonIdentity = "identity" // no usable document
	reasonLimit    = "limit"    // too many collections or hidden keys
)

// tally counts the work of shards.
type tally struct {
	events    [jobs][outcomes]prometheus.Counter
	rejected  *prometheus.CounterVec // reason
	refetches *prometheus.CounterVec // due: now, later
	coalesced prometheus.Counter
}

func newTally(reg prometheus.Registerer, r *Runner) (*tally, error) {
	events := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cistern_ingest_events_total", Help: "Events handled, by kind and outcome.",
	}, []string{"kind", "outcome"})
	t := &tally{
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cistern_ingest_rejected_total", Help: "Events that were invalid, by the reason.",
		}, []string{"reason"}),
		refetches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cistern_ingest_refetches_total",
			Help: "Repositories queued to be fetched again, because an event did not fit.",
		}, []string{"due"}),
		coalesced: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cistern_ingest_coalesced_total",
			Help: "Events of which only a rev or a newer one was kept, because too many waited for an " +
				"identity.",
		}),
	}
	for _, reason := range []string{reasonRev, reasonFuture, reasonDID, reasonIdentity, reasonLimit,
		refusedFrame, refusedTime, refusedRev, refusedCAR, refusedRoot, refusedCommit, refusedEnvelope,
		refusedOps, refusedRecord, refusedSignature, refusedProof, refusedTree} {
		t.rejected.WithLabelValues(reason)
	}
	for _, due := range []string{"now", "later"} {
		t.refetches.WithLabelValues(due)
	}
	for j := range jobs {
		for o := range outcomes {
			t.events[j][o] = events.WithLabelValues(jobNames[j], outcomeNames[o])
		}
	}
	for _, c := range []prometheus.Collector{
		events, t.rejected, t.refetches, t.coalesced,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "cistern_ingest_queued_events", Help: "Events read that no shard has taken yet.",
		}, r.queued),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "cistern_ingest_parked_repos", Help: "Repositories whose events wait for the network.",
		}, r.parked),
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register: %w", err)
		}
	}
	return t, nil
}
