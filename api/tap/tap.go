package tap

import (
	"context"
	"errors"
	"net/http"

	"cistern/api/durable"
	"cistern/api/wire"
	"cistern/ingest/identity"
	"cistern/store"
)

// Options of New.
type Options struct {
	// Store is the store that is served, and Subscriptions has the one named durable.Tap.
	// Required.
	Store         *store.Store
	Subscriptions *durable.Registry
	// Add follows repositories, and Remove stops following them. The DIDs are valid. Changes are
	// durable on return; the error is a refusal if a repository cannot be followed. Required.
	Add, Remove func(dids []string) error
	// Resolve reads the DID document of an account that the store does not know. Default: such
	// accounts are not found.
	Resolve func(ctx context.Context, did string) (identity.Identity, error)
	// Cursor returns the durable cursor of the firehose. ok is false if none is followed, or
	// several. Default: none.
	Cursor func() (seq int64, ok bool)
}

// API answers tap's routes.
type API struct{ o Options }

// New returns an API.
func New(o Options) (*API, error) {
	if o.Store == nil || o.Subscriptions == nil || o.Add == nil || o.Remove == nil {
		return nil, errors.New("tap needs a store, subscriptions, and functions that add and remove")
	}
	if o.Cursor == nil {
		o.Cursor = func() (int64, bool) { return 0, false }
	}
	return &API{o}, nil
}

// Health answers GET /health.
func (a *API) Health(w http.ResponseWriter, _ *http.Request) error {
	wire.WriteJSON(w, http.StatusOK, struct {
		Status string `json:"status"`
	}{"ok"})
	return nil
}

// Add answers POST /repos/add.
func (a *API) Add(w http.ResponseWriter, r *http.Request) error { return change(w, r, a.o.Add) }

// Remove answers POST /repos/remove.
func (a *API) Remove(w http.ResponseWriter, r *http.Request) error {
	return change(w, r, a.o.Remove)
}

// change has do change the repositories that the body names. The answer has no body.
func change(w http.ResponseWriter, r *http.Request, do func([]string) error) error {
	var body struct {
		DIDs []string `json:"dids"`
	}
	if err := wire.ReadObject(w, r, bodyBytesMax, &body); err != nil {
		return err
	}
	if n := len(body.DIDs); n > didsMax {
		return wire.Refuse("PayloadTooLarge", "%d DIDs: at most %d in one list", n, didsMax)
	}
	for _, did := range body.DIDs {
		if reason := wire.BadDID(did); reason != "" {
			return wire.Invalid("%s is not a DID: %s", wire.Echo(did), reason)
		}
	}
	if err := do(body.DIDs); err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// pathDID returns the DID in the path of a request.
func pathDID(r *http.Request) (string, error) {
	did := r.PathValue("did")
	if reason := wire.BadDID(did); reason != "" {
		return "", wire.Invalid("%s is not a DID: %s", wire.Echo(did), reason)
	}
	return did, nil
}

// Resolve answers GET /resolve/{did}. It shows the document of a known account as it was resolved
// last, which identity events keep current.
func (a *API) Resolve(w http.ResponseWriter, r *http.Request) error {
	did, err := pathDID(r)
	if err != nil {
		return err
	}
	row, err := a.o.Store.Repo(did)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	ident := identity.Identity{DID: did, Handle: row.Handle, Key: row.Key, PDS: row.PDS}
	if row.Resolved == 0 && a.o.Resolve != nil {
		if ident, err = a.o.Resolve(r.Context(), did); err != nil {
			return unresolved(did, err)
		}
	} else if row.PDS == "" {
		return wire.Refuse("NotFound", "the DID document of %s is not known", did)
	}
	doc := wire.NewDocument(did, ident.Handle, ident.Key, ident.PDS)
	wire.WriteJSON(w, http.StatusOK, doc)
	return nil
}

// unresolved returns the refusal for a DID without a usable document.
func unresolved(did string, err error) error {
	if errors.Is(err, identity.ErrNotFound) || errors.Is(err, identity.ErrInvalid) {
		return wire.Refuse("NotFound", "%s: %v", did, err)
	}
	return wire.Refuse("Unavailable", "the DID document of %s cannot be read now: %v", did, err)
}

// repoInfo is a repository in tap's words.
type repoInfo struct {
	DID     string `json:"did"`
	Handle  string `json:"handle"` // "" until it is resolved
	State   string `json:"state"`
	Rev     string `json:"rev"` // "" before the first copy
	Records int64  `json:"records"`
	Error   string `json:"error,omitempty"`
	Retries uint32 `json:"retries,omitempty"`
}

// Info answers GET /info/{did}.
func (a *API) Info(w http.ResponseWriter, r *http.Request) error {
	did, err := pathDID(r)
	if err != nil {
		return err
	}
	row, err := a.o.Store.Repo(did)
	if errors.Is(err, store.ErrNotFound) || err == nil && row.Tracked == store.Untracked {
		return wire.Refuse("NotFound", "repo not found: %s is not followed", did)
	}
	if err != nil {
		return err
	}
	wire.WriteJSON(w, http.StatusOK, repoInfo{DID: did, Handle: row.Handle, State: state(&row),
		Rev: row.Rev, Records: row.Records, Error: row.Retry.Error, Retries: row.Retry.Count})
	return nil
}

// state returns tap's word for the state of a followed repository.
func state(row *store.Repo) string {
	switch row.State {
	case store.StateSynced, store.StateDraining:
		return "active"
	case store.StateResync:
		if row.Retry.Kind == store.RateLimited {
			return "desynchronized"
		}
		return "error"
	case store.StateGone:
		if word := row.Status.Word(); word != "" {
			return word
		}
		return "error"
	}
	if row.Rev == "" {
		return "pending"
	}
	return "desynchronized"
}
