package tap

import (
	"net/http"

	"cistern/api/durable"
	"cistern/api/wire"
)

// RepoCount answers GET /stats/repo-count: repositories that are followed, and inactive accounts.
func (a *API) RepoCount(w http.ResponseWriter, _ *http.Request) error {
	counts := a.o.Store.Counts()
	wire.WriteJSON(w, http.StatusOK, struct {
		N int64 `json:"repo_count"`
	}{counts["repos"] - counts["idle"]})
	return nil
}

// RecordCount answers GET /stats/record-count.
func (a *API) RecordCount(w http.ResponseWriter, _ *http.Request) error {
	wire.WriteJSON(w, http.StatusOK, struct {
		N int64 `json:"record_count"`
	}{a.o.Store.Counts()["records"]})
	return nil
}

// OutboxBuffer answers GET /stats/outbox-buffer: events of the log that are sent and not
// acknowledged, or still to be sent.
func (a *API) OutboxBuffer(w http.ResponseWriter, _ *http.Request) error {
	n := a.o.Store.Head() + 1 - a.o.Store.Oldest() // before the first connection: all that is kept
	if st, err := a.o.Subscriptions.Status(durable.Tap); err == nil {
		n = st.Lag + uint64(st.Outstanding)
	}
	wire.WriteJSON(w, http.StatusOK, struct {
		N uint64 `json:"outbox_buffer"`
	}{n})
	return nil
}

// ResyncBuffer answers GET /stats/resync-buffer: live commits that wait for a copy of their
// repository.
func (a *API) ResyncBuffer(w http.ResponseWriter, _ *http.Request) error {
	wire.WriteJSON(w, http.StatusOK, struct {
		N int64 `json:"resync_buffer"`
	}{a.o.Store.Counts()["buffered"]})
	return nil
}

// Cursors answers GET /stats/cursors. Listings have a cursor for each host, not one for all.
func (a *API) Cursors(w http.ResponseWriter, _ *http.Request) error {
	var body struct {
		Firehose *int64 `json:"firehose,omitempty"`
	}
	if seq, ok := a.o.Cursor(); ok {
		body.Firehose = &seq
	}
	wire.WriteJSON(w, http.StatusOK, body)
	return nil
}
