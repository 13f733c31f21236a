package api

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"cistern/filter"
	"cistern/store"
)

// filterItem is the filter in force as the operator sees it.
type filterItem struct {
	filter.Config
	Version uint32 `json:"version"`
	// Change is null when the filter is applied to every repository that is not gone.
	Change *filterChange `json:"change"`
}

// filterChange describes how far the filter is applied.
type filterChange struct {
	Running bool   `json:"running"` // a pass over all repositories is under way
	Cursor  string `json:"cursor"`  // the last DID that the pass has handled in this round
	// repositories that lack records or hold too many, and are not fetched yet
	Lacking int64 `json:"lacking"`
}

// showFilter handles GET /filter.
func (s *Server) showFilter(w http.ResponseWriter, _ *http.Request) error {
	return s.writeFilter(w, s.store.Filter())
}

func (s *Server) writeFilter(w http.ResponseWriter, f store.FilterVersion) error {
	item := filterItem{Config: f.Config(), Version: f.Version}
	cursor, running, err := s.opts.Refilter()
	if err != nil {
		return fmt.Errorf("read how far the filter is applied: %w", err)
	}
	if lacking := s.store.Counts()["lacking"]; running || lacking > 0 {
		item.Change = &filterChange{Running: running, Cursor: cursor, Lacking: lacking}
	}
	writeJSON(w, http.StatusOK, item)
	return nil
}

// changeFilter handles PATCH /filter. It answers as GET does, once the filter is durable. If any
// value of the body is invalid, it changes nothing.
func (s *Server) changeFilter(w http.ResponseWriter, r *http.Request) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, filterBytesMax))
	if err != nil {
		return bodyError(err, 0)
	}
	f, err := s.patchFilter(body)
	if err != nil {
		return err
	}
	s.opts.Wake()
	return s.writeFilter(w, f)
}

// patchFilter changes the filter in force. Concurrent changes are made one after the other.
func (s *Server) patchFilter(body []byte) (store.FilterVersion, error) {
	s.filterMu.Lock()
	defer s.filterMu.Unlock()
	c, err := s.store.Filter().Config().Patch(body)
	if err != nil {
		return store.FilterVersion{}, refuse("InvalidRequest", "%s", mistakes(err))
	}
	f, err := s.store.SetFilter(c)
	if errors.Is(err, store.ErrFilters) {
		return f, refuse("Unavailable", "%v", err)
	}
	if err != nil {
		return f, fmt.Errorf("set the filter: %w", err)
	}
	return f, nil
}

// mistakes joins the lines of err, each one mistake, to one sentence.
func mistakes(err error) string {
	lines := strings.Split(err.Error(), "\n")
	if more := len(lines) - mistakesMax; more > 0 {
		lines = append(lines[:mistakesMax], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(lines, "; ")
}

// notExcluded refuses a list with a DID that the filter excludes: the next pass would unfollow it.
func (s *Server) notExcluded(dids []string) error {
	f := s.store.Filter()
	var excluded []string
	for _, did := range dids {
		if f.Excluded(did) {
			excluded = append(excluded, did)
		}
	}
	if len(excluded) == 0 {
		return nil
	}
	more := ""
	if n := len(excluded) - mistakesMax; n > 0 {
		excluded, more = excluded[:mistakesMax], fmt.Sprintf(" and %d more", n)
	}
	return invalid("the filter excludes %s%s, so no item of the list was changed: PATCH /filter first", strings.Join(excluded, ", "), more)
}
