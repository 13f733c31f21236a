package admin

import (
	"fmt"
	"net/http"
	"slices"

	"cistern/api/wire"
	"cistern/store"
)

// outcome is the result for one item of a list.
type outcome struct {
	DID     string `json:"did"`
	Result  string `json:"result,omitempty"`
	Error   string `json:"error,omitempty"`
	Message string `json:"message,omitempty"`
}

// change changes one row under its lock, writes it if it changed, and returns the outcome.
type change func(b *store.Batch, row *store.Repo) (result string, err error)

// changes tracks, untracks and resyncs the repositories that the operator names.
type changes struct {
	store *store.Store
	wake  func() // called after the pending queue may have grown
}

// track handles PUT /repos: follow repositories.
func (c *changes) track(w http.ResponseWriter, r *http.Request) error {
	dids, err := wire.ReadDIDs(w, r, bodyBytesMax, bodyItemsMax)
	if err != nil {
		return err
	}
	if err := notExcluded(c.store.Filter(), dids); err != nil {
		return err
	}
	return c.each(w, r, dids, track)
}

func track(b *store.Batch, row *store.Repo) (string, error) {
	result := "known"
	if row.Tracked == store.ByOperator {
		return result, nil
	}
	if row.Tracked == store.Untracked {
		result = "added"
		if row.Known() && row.Ordinal == 0 && !row.Status.Hidden() {
			b.Account(row) // to consumers, a purge deleted the account
		}
		row.Recheck = false
		b.Track(row, store.ByOperator, store.PriorityOperator)
	}
	row.Tracked = store.ByOperator
	if row.State == store.StatePending {
		row.Pending.Priority = store.PriorityOperator
	}
	b.PutRepo(row)
	return result, nil
}

// untrack handles DELETE /repos: stop following repositories, and keep their data, or wipe it with
// ?purge=true.
func (c *changes) untrack(w http.ResponseWriter, r *http.Request) error {
	q, err := wire.ParseQuery(r)
	if err != nil {
		return err
	}
	purging, err := q.Bool("purge")
	if err != nil {
		return err
	}
	if purging {
		return c.all(w, r, purge)
	}
	return c.all(w, r, untrack)
}

func untrack(b *store.Batch, row *store.Repo) (string, error) {
	if !row.Known() {
		return "not found", nil
	}
	if row.Tracked != store.Untracked {
		b.Untrack(row)
		b.PutRepo(row)
	}
	return "removed", nil
}

// purge wipes the data. An account event tells consumers that the account no longer exists; the row
// keeps the status that its host states.
func purge(b *store.Batch, row *store.Repo) (string, error) {
	if !row.Known() {
		return "not found", nil
	}
	held := row.Ordinal != 0
	b.Untrack(row)
	if err := b.Wipe(row); err != nil {
		return "", err
	}
	if held {
		gone := *row
		gone.Status = store.StatusDeleted
		b.Account(&gone)
	}
	b.PutRepo(row)
	return "purged", nil
}

// resync handles POST /repos/resync: fetch repositories again now. A fetch under way may be older
// than the request, so one more fetch follows it.
func (c *changes) resync(w http.ResponseWriter, r *http.Request) error {
	return c.all(w, r, resync)
}

func resync(b *store.Batch, row *store.Repo) (string, error) {
	switch {
	case !row.Known():
		return "not found", nil
	case row.Tracked == store.Untracked:
		return "not tracked", nil
	case row.State == store.StatePending:
		row.Asked++
		row.Pending.Priority = store.PriorityOperator
	default:
		b.Enqueue(row, store.PriorityOperator)
	}
	row.Recheck = false
	b.PutRepo(row)
	return "queued", nil
}

// all applies do to every DID in the body, and answers with the outcomes.
func (c *changes) all(w http.ResponseWriter, r *http.Request, do change) error {
	dids, err := wire.ReadDIDs(w, r, bodyBytesMax, bodyItemsMax)
	if err != nil {
		return err
	}
	return c.each(w, r, dids, do)
}

// each applies do to DIDs that were read already, and answers with the outcomes.
func (c *changes) each(w http.ResponseWriter, r *http.Request, dids []string, do change) error {
	out := make([]outcome, len(dids))
	results := make(map[string]string, len(dids))
	for i, did := range dids {
		out[i].DID = did
		if reason := wire.BadDID(did); reason != "" {
			out[i] = outcome{DID: clip(did), Error: "InvalidDID",
				Message: wire.Echo(did) + " is not a DID: " + reason}
			continue
		}
		results[did] = ""
	}
	if err := c.apply(results, do); err != nil {
		return err
	}
	for i := range out {
		if out[i].Error == "" {
			out[i].Result = results[out[i].DID]
		}
	}
	return wire.WriteList(w, r, out)
}

// clip shortens an item that an answer repeats.
func clip(did string) string { return did[:min(len(did), wire.DIDBytesMax)] }

// apply changes the rows of the DIDs that are the keys of results, and stores their outcomes there.
// It returns when all changes are durable.
func (c *changes) apply(results map[string]string, do change) error {
	if len(results) == 0 {
		return nil
	}
	dids := make([]string, 0, len(results))
	for did := range results {
		dids = append(dids, did)
	}
	slices.Sort(dids) // locks are taken in this order everywhere
	defer c.wake()
	for chunk := range slices.Chunk(dids, changesMax) {
		wait, err := c.applyBatch(chunk, results, do)
		if err == nil {
			err = wait()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// applyBatch changes some rows in one batch.
func (c *changes) applyBatch(
	dids []string, results map[string]string, do change,
) (wait func() error, err error) {
	return c.store.Update(dids, func(b *store.Batch, rows []store.Repo) error {
		for i := range rows {
			row := &rows[i]
			var err error
			if results[row.DID], err = do(b, row); err != nil {
				return fmt.Errorf("change %s: %w", row.DID, err)
			}
		}
		return nil
	})
}

// Follow follows repositories for a client of tap. If a repository was unfollowed before, all its
// records are sent again. The DIDs must be valid. The changes are durable on return. The error is a
// refusal if the filter excludes a repository, and then nothing has changed.
func (h *Handlers) Follow(dids []string) error {
	if err := notExcluded(h.changes.store.Filter(), dids); err != nil {
		return err
	}
	return h.changes.apply(outcomesOf(dids), follow)
}

// Unfollow stops following repositories, and keeps their data. The DIDs are valid. The changes are
// durable on return. An error is one of the store.
func (h *Handlers) Unfollow(dids []string) error {
	return h.changes.apply(outcomesOf(dids), untrack)
}

// outcomesOf returns the outcomes of dids, all still empty, for changes.apply.
func outcomesOf(dids []string) map[string]string {
	outcomes := make(map[string]string, len(dids))
	for _, did := range dids {
		outcomes[did] = ""
	}
	return outcomes
}

// follow is track for a client of tap. Tap forgets a repository that is removed, and sends all its
// records when it is added again. So follow lists the records that were kept, before the fetch
// changes them.
func follow(b *store.Batch, row *store.Repo) (string, error) {
	again := row.Known() && row.Tracked == store.Untracked && row.Ordinal != 0
	if again && !row.Status.Hidden() {
		if err := b.Relist(row); err != nil {
			return "", err
		}
	}
	return track(b, row)
}
