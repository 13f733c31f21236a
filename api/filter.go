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
	// Change is null when every repository is as the filter says, except those that are gone.
	Change *filterChange `json:"change"`
}

// filterChange is how far repositories have been brought to the filter.
type filterChange struct {
	Running bool   `json:"running"` // a pass over all repositories is under way
	Cursor  string `json:"cursor"`  // the last DID that its round is done with
	Lacking int64  `json:"lacking"` // repositories that lack records, or hold too many: their fetch is to come
}

// showFilter is GET /filter.
func (s *Server) showFilter(w http.ResponseWriter, _ *http.Request) error {
	return s.writeFilter(w, s.store.Filter())
}

func (s *Server) writeFilter(w http.ResponseWriter, f store.FilterVersion) error {
	item := filterItem{Config: f.Config(), Version: f.Version}
	cursor, running, err := s.opts.Refilter()
	if err != nil {
		return fmt.Errorf("look how far the filter is applied: %w", err)
	}
	if lacking := s.store.Counts()["lacking"]; running || lacking > 0 {
		item.Change = &filterChange{Running: running, Cursor: cursor, Lacking: lacking}
	}
	writeJSON(w, http.StatusOK, item)
	return nil
}

// changeFilter is PATCH /filter. It answers as GET does, once the filter is durable, and changes nothing if any of the
// body will not do.
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

// patchFilter changes the filter in force. Of two at a time, the second changes what the first made.
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

// mistakes is what is wrong, each of which is a line of err, as one sentence.
func mistakes(err error) string {
	lines := strings.Split(err.Error(), "\n")
	if more := len(lines) - mistakesMax; more > 0 {
		lines = append(lines[:mistakesMax], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(lines, "; ")
}

// notExcluded refuses a list that names a DID which the filter excludes: following it would last until the next look.
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
	return invalid("the filter excludes %s%s: PATCH /filter first, and nothing of the list was done", strings.Join(excluded, ", "), more)
}
