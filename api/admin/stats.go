package admin

import (
	"fmt"
	"log/slog"
	"maps"
	"net/http"

	"cistern/api/wire"
	"cistern/store"
)

type statistics struct {
	Counts map[string]int64 `json:"counts"`
	Sizes  map[string]int64 `json:"sizes"`
	Verify string           `json:"verify"`
	// Ephemeral reports that the store keeps events only. It is absent if the store keeps records.
	Ephemeral bool `json:"ephemeral,omitempty"`

	Log logBounds `json:"log"`
	// Paused has the reasons for which parts of ingestion are paused, by part.
	Paused map[string][]string `json:"paused,omitempty"`
	// Conditions are what backfill and crawling may wait for.
	Conditions []conditionItem `json:"conditions,omitempty"`
	// Phase is absent while the daemon is active.
	Phase *phaseBody `json:"phase,omitempty"`
	// Firehose is absent if no firehose is followed.
	Firehose *firehoseTotals `json:"firehose,omitempty"`
}

type logBounds struct {
	Epoch string `json:"epoch"`
	Tail  uint64 `json:"tail"`
	Head  uint64 `json:"head"`
}

// stats answers /stats and the probes.
type stats struct {
	store      *store.Store
	sizes      paced[map[string]int64]
	sources    *sources
	ingestion  *Ingestion
	phases     phases
	conditions conditions
	syncing    func() int
	verify     string
	version    string
	stopping   func() bool
	logger     *slog.Logger
}

// show handles GET /stats. It is cheap enough to be polled.
func (s *stats) show(w http.ResponseWriter, _ *http.Request) error {
	now, err := s.read()
	if err != nil {
		return err
	}
	wire.WriteJSON(w, http.StatusOK, now)
	return nil
}

// read returns the statistics of now.
func (s *stats) read() (statistics, error) {
	sizes, err := s.sizes.get()
	if err != nil {
		return statistics{}, fmt.Errorf("read sizes: %w", err)
	}
	counts := maps.Clone(s.store.Counts())
	counts["syncing"] = int64(s.syncing())
	return statistics{
		Counts: counts, Sizes: sizes, Verify: s.verify, Ephemeral: s.store.Ephemeral(),
		Paused:   s.ingestion.paused(),
		Log:      logBounds{Epoch: s.store.Epoch(), Tail: s.store.Oldest(), Head: s.store.Head()},
		Firehose: s.sources.totals(), Phase: s.phases.unlessActive(),
		Conditions: s.conditions.items(),
	}, nil
}

// alive handles GET /healthz: the process answers.
func alive(w http.ResponseWriter, _ *http.Request) error {
	wire.WriteJSON(w, http.StatusOK, struct {
		Status string `json:"status"`
	}{"alive"})
	return nil
}

// ready handles GET /readyz: the store can be read and written, however far behind it is, and the
// daemon has not begun to stop. The store's error may name paths, and any client may ask, so that
// the answer leaves it out.
func (s *stats) ready(w http.ResponseWriter, _ *http.Request) error {
	if err := s.store.Ready(); err != nil {
		s.logger.Error("the daemon is not ready: the store has failed", "err", err)
	}
	if reason := s.unready(); reason != "" {
		return wire.Refuse("Unavailable", "%s", reason)
	}
	wire.WriteJSON(w, http.StatusOK, struct {
		Status string `json:"status"`
		Head   uint64 `json:"head"`
	}{"ready", s.store.Head()})
	return nil
}

// unready returns why the daemon is not ready, "" if it is.
func (s *stats) unready() string {
	switch {
	case s.store.Ready() != nil:
		return "not ready: the store has failed; see the daemon's log"
	case s.stopping():
		return "not ready: the daemon is stopping"
	}
	return ""
}
