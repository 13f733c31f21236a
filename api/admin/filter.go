package admin

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"cistern/api/wire"
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

// filters shows and changes the filter in force.
type filters struct {
	store    *store.Store
	wake     func() // called after the pending queue may have grown
	refilter func() (cursor string, running bool, err error)

	mu sync.Mutex // held while the filter is read, changed and set
}

// show handles GET /filter.
func (fs *filters) show(w http.ResponseWriter, _ *http.Request) error {
	return fs.write(w, fs.store.Filter())
}

func (fs *filters) write(w http.ResponseWriter, f store.FilterVersion) error {
	item := filterItem{Config: f.Config(), Version: f.Version}
	cursor, running, err := fs.refilter()
	if err != nil {
		return fmt.Errorf("read how far the filter is applied: %w", err)
	}
	if lacking := fs.store.Counts()["lacking"]; running || lacking > 0 {
		item.Change = &filterChange{Running: running, Cursor: cursor, Lacking: lacking}
	}
	wire.WriteJSON(w, http.StatusOK, item)
	return nil
}

// change handles PATCH /filter. It answers as GET does, once the filter is durable. If any
// value of the body is invalid, it changes nothing.
func (fs *filters) change(w http.ResponseWriter, r *http.Request) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, filterBytesMax))
	if err != nil {
		return wire.BodyError(err, 0)
	}
	f, err := fs.patch(body)
	if err != nil {
		return err
	}
	fs.wake()
	return fs.write(w, f)
}

// patch changes the filter in force. Concurrent changes are made one after the other.
func (fs *filters) patch(body []byte) (store.FilterVersion, error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	c, err := fs.store.Filter().Config().Patch(body)
	if err != nil {
		return store.FilterVersion{}, wire.Refuse("InvalidRequest", "%s", mistakes(err))
	}
	f, err := fs.store.SetFilter(c)
	if errors.Is(err, store.ErrFilters) {
		return f, wire.Refuse("Unavailable", "%v", err)
	}
	if errors.Is(err, store.ErrStoresAll) {
		return f, wire.Invalid("%v", err)
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
func notExcluded(f store.FilterVersion, dids []string) error {
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
	return wire.Invalid("the filter excludes %s%s, so no item of the list was changed: PATCH "+
		"/filter first", strings.Join(excluded, ", "), more)
}
