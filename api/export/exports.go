package export

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"

	"cistern/api/atproto"
	"cistern/api/clients"
	"cistern/api/wire"
	"cistern/ingest/repo"
	"cistern/store"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/prometheus/client_golang/prometheus"
)

const typeCAR = "application/vnd.ipld.car"

// Exports answers the queries of com.atproto.sync whose answer is a CAR.
type Exports struct {
	store    *store.Store
	exporter *Exporter
	wake     func()         // called after the pending queue may have grown
	turns    *clients.Turns // acquired by the weight of a CAR, until it is sent
	queue    *clients.Queue // of the processors
}

// NewExports answers from a store, with processors of a queue. wake is called after the pending
// queue may have grown.
func NewExports(s *store.Store, queue *clients.Queue, wake func(), l *slog.Logger,
	reg prometheus.Registerer) (*Exports, error) {
	e := &Exports{store: s, wake: wake, turns: clients.NewTurns(turnsMax), queue: queue}
	var err error
	e.exporter, err = New(Options{Registerer: reg, Logger: l, Refetch: e.refetch})
	return e, err
}

// GetRepo answers com.atproto.sync.getRepo. The parameter since leaves out records that were
// written up to a rev; all nodes are sent, because the store does not know which nodes a deletion
// changed. The parameter prefix, an extension of the lexicon, asks for a collection, or for its
// records whose keys begin with a text, with the nodes that prove that no record is missing.
func (e *Exports) GetRepo(w http.ResponseWriter, r *http.Request) error {
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
	part, err := parsePrefix(q.Text("prefix"))
	if err != nil {
		return err
	}
	return e.sendPart(w, r, q.Client, did, repoWeight, part, since)
}

// parsePrefix reads a collection, or a collection, a slash and the beginning of record keys. "" is
// the whole repository.
func parsePrefix(text string) (Part, error) {
	if text == "" {
		return Part{}, nil
	}
	collection, rkeys, _ := strings.Cut(text, "/")
	if _, err := syntax.ParseNSID(collection); err != nil {
		return Part{}, wire.Invalid("prefix %s does not begin with a collection", wire.Echo(text))
	}
	// "." and ".." are not record keys, but record keys begin with them.
	if _, err := syntax.ParseRecordKey(rkeys); err != nil && strings.Trim(rkeys, ".") != "" {
		return Part{}, wire.Invalid("prefix %s does not end with the beginning of a record key",
			wire.Echo(text))
	}
	return Prefix(collection, rkeys), nil
}

// GetRecord answers com.atproto.sync.getRecord with a proof of the record, or of its absence.
func (e *Exports) GetRecord(w http.ResponseWriter, r *http.Request) error {
	q, err := wire.ParseQuery(r)
	if err != nil {
		return err
	}
	did, err := q.DID("did")
	if err != nil {
		return err
	}
	collection, err := q.Collection()
	if err != nil {
		return err
	}
	if _, err := q.Required("rkey"); err != nil {
		return err
	}
	rkey, err := q.RecordKey("rkey")
	if err != nil {
		return err
	}
	return e.sendPart(w, r, q.Client, did, proofWeight, Record(collection, rkey), "")
}

// GetBlocks answers com.atproto.sync.getBlocks.
func (e *Exports) GetBlocks(w http.ResponseWriter, r *http.Request) error {
	q, err := wire.ParseQuery(r, "cids")
	if err != nil {
		return err
	}
	did, err := q.DID("did")
	if err != nil {
		return err
	}
	if _, err := q.Required("cids"); err != nil {
		return err
	}
	texts := q.All("cids")
	if len(texts) > blocksMax {
		return wire.Invalid("%d cids are given: want 1 to %d", len(texts), blocksMax)
	}
	want := make([]repo.CID, len(texts))
	for i, text := range texts {
		if want[i], err = repo.ParseCID(text); err != nil {
			return wire.Invalid("cid %s is not the CID of a block of a repository", wire.Echo(text))
		}
	}
	return e.send(w, r, q.Client, did, repoWeight,
		func(ctx context.Context, v *store.RepoView) (car, error) {
			b, err := e.exporter.Find(ctx, v, want)
			if err != nil {
				return nil, err
			}
			return func(s *stream) error { return b.Write(ctx, s) }, nil
		})
}

// sendPart sends a part of a repository.
func (e *Exports) sendPart(w http.ResponseWriter, r *http.Request, client netip.Prefix, did string,
	weight int64, part Part, since string) error {
	return e.send(w, r, client, did, weight,
		func(ctx context.Context, v *store.RepoView) (car, error) {
			x, err := e.exporter.Open(ctx, v, part)
			if err != nil {
				return nil, err
			}
			return func(s *stream) error { return x.Write(ctx, s, since) }, nil
		})
}

// car writes a CAR.
type car func(*stream) error

// send waits for a turn, opens a view of a repository that may be shown, and sends the CAR that
// open prepares.
func (e *Exports) send(w http.ResponseWriter, r *http.Request, client netip.Prefix, did string,
	weight int64, open func(context.Context, *store.RepoView) (car, error)) (err error) {
	if err := e.turn(r.Context(), client, weight); err != nil {
		return err
	}
	defer e.turns.Release(client, weight)
	ctx, leave, err := e.queue.Enter(r.Context(), client)
	if err != nil {
		return err
	}
	defer leave()
	v, err := e.store.ViewRepo(did)
	if errors.Is(err, store.ErrNotFound) {
		return atproto.NotFound(did)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	row := v.Repo()
	if err := atproto.Hidden(row); err != nil {
		return err
	}
	write, err := open(ctx, v)
	if err != nil {
		return refusal(did, err)
	}
	w.Header().Set("Content-Type", typeCAR)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Atproto-Repo-Rev", row.Rev)
	if r.Method == http.MethodHead {
		return nil
	}
	s := newStream(ctx, w, func() error { return shown(e.store, row) })
	return s.end(refusal(did, write(s)))
}

// turn waits for a turn of a client.
func (e *Exports) turn(ctx context.Context, client netip.Prefix, weight int64) error {
	ctx, cancel := context.WithTimeout(ctx, turnWait)
	defer cancel()
	if err := e.turns.Acquire(ctx, client, weight); err != nil {
		return wire.Refuse("Unavailable", "too many CARs are being sent")
	}
	return nil
}

// shown returns why a copy in a store may not be shown any more, nil if it may.
func shown(s *store.Store, was *store.Repo) error {
	now, err := s.RepoOrNew(was.DID)
	if err != nil {
		return err
	}
	if now.Ordinal != was.Ordinal {
		return atproto.NotFound(was.DID)
	}
	return atproto.Hidden(&now)
}

// refetch puts a repository into the queue whose copy at a rev does not agree with its commit,
// unless that is outdated. Its host is asked when its turn comes.
func (e *Exports) refetch(did, rev string) error {
	if e.store.Frozen() != nil {
		return wire.Refuse("Unavailable", "the daemon is suspended")
	}
	defer e.wake()
	wait, err := e.store.UpdateRepo(did, func(b *store.Batch, row *store.Repo) error {
		complete := row.State == store.StateSynced || row.State == store.StateDraining
		if !complete || row.Rev != rev {
			return nil
		}
		b.Enqueue(row, store.PriorityRetry)
		row.Recheck = false
		b.PutRepo(row)
		return nil
	})
	if err != nil {
		return err
	}
	return wait() // readers of many records wait until every batch is known to be durable
}

// refusal returns the refusal for an error of this package.
func refusal(did string, err error) error {
	var missing *MissingError
	switch {
	case errors.As(err, &missing):
		return wire.Refuse("BlockNotFound", "Could not find cids: %s", missing.names())
	case errors.Is(err, ErrTooLarge):
		return wire.Invalid("%s: ask for fewer at a time", err)
	case errors.Is(err, ErrMismatch):
		return wire.Refuse("RepoIncomplete", "the copy of %s here does not agree with its commit, "+
			"and is fetched again", did)
	case errors.Is(err, ErrIncomplete):
		return wire.Refuse("RepoIncomplete", "this server cannot show all records of %s that the "+
			"answer needs: ask its host", did)
	case errors.Is(err, store.ErrStale):
		return wire.Refuse("Unavailable", "the filter of %s is being changed", did)
	}
	return err
}
