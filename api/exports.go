package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"

	"cistern/api/atproto"
	"cistern/api/clients"
	"cistern/api/export"
	"cistern/api/wire"
	"cistern/ingest/repo"
	"cistern/store"

	"github.com/prometheus/client_golang/prometheus"
)

const typeCAR = "application/vnd.ipld.car"

// exports answers the queries whose answer is a CAR.
type exports struct {
	store    *store.Store
	exporter *export.Exporter
	wake     func()         // called after the pending queue may have grown
	turns    *clients.Turns // acquired by the weight of a CAR, until it is sent
}

func newExports(s *store.Store, wake func(), l *slog.Logger, reg prometheus.Registerer) (*exports, error) {
	e := &exports{store: s, wake: wake, turns: clients.NewTurns(exportsMax)}
	var err error
	e.exporter, err = export.New(export.Options{Registerer: reg, Logger: l, Refetch: e.refetch})
	return e, err
}

// methods returns the queries by name.
func (e *exports) methods() map[string]handler {
	return map[string]handler{
		"com.atproto.sync.getRepo": e.getRepo,
	}
}

// getRepo answers com.atproto.sync.getRepo. since leaves out records that were written up to a rev;
// all nodes are sent, since the store does not know which a deletion has changed.
func (e *exports) getRepo(w http.ResponseWriter, r *http.Request) error {
	q, err := wire.ParseQuery(r)
	if err != nil {
		return err
	}
	did, err := q.DID("did")
	if err != nil {
		return err
	}
	since := q.Text("since")
	if since != "" {
		if _, err := repo.ParseTID(since); err != nil {
			return wire.Invalid("since %s is not a rev", wire.Echo(since))
		}
	}
	return e.send(w, r, q.Client, did, exportWeight, func(ctx context.Context, v *store.RepoView) (car, error) {
		x, err := e.exporter.Open(ctx, v, export.Part{})
		if err != nil {
			return nil, err
		}
		return func(s *carStream) error { return x.Write(ctx, s, since) }, nil
	})
}

// car writes a CAR.
type car func(*carStream) error

// send waits for a turn, opens a view of a repository that may be shown, and sends the CAR that open
// prepares.
func (e *exports) send(w http.ResponseWriter, r *http.Request, client netip.Prefix, did string,
	weight int64, open func(context.Context, *store.RepoView) (car, error)) (err error) {
	if err := e.turn(r.Context(), client, weight); err != nil {
		return err
	}
	defer e.turns.Release(client, weight)
	v, err := e.store.ViewRepo(did)
	if errors.Is(err, store.ErrNotFound) {
		return atproto.NotFound(did)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	row := v.Repo()
	if row.Rev == "" && !row.Status.Hidden() {
		return atproto.NotFound(did)
	}
	if err := atproto.Hidden(row); err != nil {
		return err
	}
	write, err := open(r.Context(), v)
	if err != nil {
		return exportRefusal(did, err)
	}
	w.Header().Set("Content-Type", typeCAR)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Atproto-Repo-Rev", row.Rev)
	if r.Method == http.MethodHead {
		return nil
	}
	s := newCARStream(w, r, func() error { return e.shown(row) })
	return s.end(exportRefusal(did, write(s)))
}

// turn waits for a turn of a client.
func (e *exports) turn(ctx context.Context, client netip.Prefix, weight int64) error {
	ctx, cancel := context.WithTimeout(ctx, exportWait)
	defer cancel()
	if err := e.turns.Acquire(ctx, client, weight); err != nil {
		return wire.Refuse("Unavailable", "too many CARs are being sent")
	}
	return nil
}

// shown returns why a copy may not be shown any more, nil if it may.
func (e *exports) shown(was *store.Repo) error {
	now, err := e.store.RepoOrNew(was.DID)
	if err != nil {
		return err
	}
	if now.Ordinal != was.Ordinal {
		return atproto.NotFound(was.DID)
	}
	return atproto.Hidden(&now)
}

// refetch puts a repository into the queue whose copy at a rev does not agree with its commit, unless
// that is outdated. Its host is asked when its turn comes.
func (e *exports) refetch(did, rev string) error {
	if e.store.Frozen() != nil {
		return wire.Refuse("Unavailable", "the daemon is suspended")
	}
	defer e.wake()
	_, err := e.store.UpdateRepo(did, func(b *store.Batch, row *store.Repo) error {
		complete := row.State == store.StateSynced || row.State == store.StateDraining
		if !complete || row.Rev != rev {
			return nil
		}
		b.Enqueue(row, store.PriorityRetry)
		row.Recheck = false
		b.PutRepo(row)
		return nil
	})
	return err
}

// exportRefusal names the errors of package export.
func exportRefusal(did string, err error) error {
	switch {
	case errors.Is(err, export.ErrMismatch):
		return wire.Refuse("RepoIncomplete", "the copy of %s here does not agree with its commit, "+
			"and is fetched again", did)
	case errors.Is(err, export.ErrIncomplete):
		return wire.Refuse("RepoIncomplete", "this server does not show all records of %s that this "+
			"takes: ask its host", did)
	case errors.Is(err, store.ErrStale):
		return wire.Refuse("Unavailable", "the filter of %s is being changed", did)
	}
	return err
}
