package atproto

import (
	"context"
	"encoding/json"
	"errors"

	"cistern/api/wire"
	"cistern/store"
)

// Held returns the row of a repository with a copy in the store, or a refusal.
func (r *Records) Held(did string) (store.Repo, error) {
	row, err := r.store.Repo(did)
	if errors.Is(err, store.ErrNotFound) || err == nil && row.Rev == "" && !row.Status.Hidden() {
		return row, NotFound(did)
	}
	return row, err
}

// NotFound returns the refusal for a repository without a copy.
func NotFound(did string) error {
	return wire.Refuse("RepoNotFound", "could not find repo for DID: %s", did)
}

// Visible returns the row of a repository whose contents may be shown, or a refusal. Every query
// for contents uses it (invariant 1).
func (r *Records) Visible(did string) (store.Repo, error) {
	row, err := r.Held(did)
	if err != nil {
		return row, err
	}
	return row, Hidden(&row)
}

// Hidden returns the refusal to show the contents of a repository, nil if they may be shown.
func Hidden(row *store.Repo) error {
	did := row.DID
	switch row.Status {
	case store.StatusActive:
		if row.Rev == "" {
			return NotFound(did)
		}
		return nil
	case store.StatusTakendown:
		return wire.Refuse("RepoTakendown", "repo has been takendown: %s", did)
	case store.StatusSuspended:
		return wire.Refuse("RepoSuspended", "repo has been suspended: %s", did)
	case store.StatusDeactivated:
		return wire.Refuse("RepoDeactivated", "repo has been deactivated: %s", did)
	case store.StatusInactive: // the protocol has no word for the reason
		return wire.Refuse("RepoDeactivated", "repo is not active: %s", did)
	default: // deleted, or unknown to its host
		return NotFound(did)
	}
}

// readable is like visible, for methods of com.atproto.repo. Their lexicons have no error for an
// unknown or inactive repository. Like the reference PDS, these methods answer InvalidRequest, with
// the reason as the message.
func (r *Records) readable(did string) (store.Repo, error) {
	row, err := r.Visible(did)
	var hidden *wire.Refusal
	if errors.As(err, &hidden) {
		return row, wire.Invalid("%s", hidden.Message)
	}
	return row, err
}

type description struct {
	Handle          string        `json:"handle"`
	DID             string        `json:"did"`
	DIDDoc          wire.Document `json:"didDoc"`
	Collections     []string      `json:"collections"`
	HandleIsCorrect bool          `json:"handleIsCorrect"`
}

// DescribeRepo answers com.atproto.repo.describeRepo. It shows the document that was resolved last,
// and the handle that this document claims. It looks the handle up: handleIsCorrect reports whether
// the handle leads to the DID, and is false if the lookup fails.
func (r *Records) DescribeRepo(ctx context.Context, q wire.Query) (Answer, error) {
	did, err := r.account(ctx, q, "repo")
	if err != nil {
		return nil, err
	}
	row, err := r.Visible(did)
	if err != nil {
		return nil, err
	}
	correct, _ := r.verified(ctx, q, row.Handle, did) // collections are shown beyond the limits too
	return func(context.Context) ([]byte, error) { return r.describe(q, did, correct) }, nil
}

func (r *Records) describe(q wire.Query, did string, correct bool) ([]byte, error) {
	row, err := r.Visible(did) // again: the lookup may have taken seconds
	if err != nil {
		return nil, err
	}
	q.Reflects(row.Rev)
	collections, err := r.store.Collections(&row)
	if err != nil {
		return nil, err
	}
	if collections == nil {
		collections = []string{}
	}
	d := description{Handle: row.Handle, DID: did, DIDDoc: document(&row), Collections: collections,
		HandleIsCorrect: correct}
	if d.Handle == "" {
		d.Handle = wire.InvalidHandle
	}
	return json.Marshal(d)
}

// document returns the document that was resolved last, as far as the row has it.
func document(row *store.Repo) wire.Document {
	return wire.NewDocument(row.DID, row.Handle, row.Key, row.PDS)
}
