package atproto

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"cistern/api/names"
	"cistern/api/wire"
	"cistern/ingest/identity"
	"cistern/store"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Answer computes the body of an answer. Its context lets others compute (clients.Yield).
type Answer func(context.Context) ([]byte, error)

// OfAccount returns a method whose parameter repo is a handle or a DID. It looks a handle up, and
// calls answer with the DID that the handle leads to.
func (r *Records) OfAccount(
	answer func(wire.Query) ([]byte, error),
) func(context.Context, wire.Query) (Answer, error) {
	return func(ctx context.Context, q wire.Query) (Answer, error) {
		did, err := r.account(ctx, q, "repo")
		if err != nil {
			return nil, err
		}
		q = q.With("repo", did)
		return func(context.Context) ([]byte, error) { return answer(q) }, nil
	}
}

// account returns the DID of the account that a parameter names, by its DID or by its handle. The
// account must claim the handle.
func (r *Records) account(ctx context.Context, q wire.Query, name string) (string, error) {
	handle, err := handleParameter(q, name)
	if err != nil {
		return "", err
	}
	if handle == "" {
		return q.DID(name)
	}
	did, err := r.didOf(ctx, q, handle)
	if err != nil {
		return "", err
	}
	ident, err := r.identity(ctx, q, did)
	if err != nil {
		return "", err
	}
	if ident.Handle != handle {
		return "", wire.Refuse("HandleNotFound", "handle %s leads to %s, which does not claim it",
			handle, did)
	}
	return did, nil
}

// handleParameter returns a required parameter in lower case if it is a handle, and "" otherwise.
func handleParameter(q wire.Query, name string) (string, error) {
	v, err := q.Required(name)
	if err != nil || strings.HasPrefix(v, "did:") {
		return "", err
	}
	handle, err := syntax.ParseHandle(v)
	if err != nil {
		return "", wire.Invalid("%s %s is neither a DID nor a handle", name, wire.Echo(v))
	}
	return handle.Normalize().String(), nil
}

// didOf returns the DID that a handle leads to, or a refusal.
func (r *Records) didOf(ctx context.Context, q wire.Query, handle string) (string, error) {
	if r.names == nil {
		return "", wire.Invalid("%s is a handle, and handles are not looked up here: give the DID",
			wire.Echo(handle))
	}
	did, err := r.names.Handle(ctx, q.Client, handle)
	if errors.Is(err, names.ErrNotFound) {
		return "", wire.Refuse("HandleNotFound", "handle %s leads to no account", wire.Echo(handle))
	}
	return did, lookupRefusal(err, handle)
}

// lookupRefusal returns the refusal for a lookup that failed, nil for nil.
func lookupRefusal(err error, name string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, names.ErrLimited):
		return wire.Refuse("RateLimitExceeded", "%v", err)
	case errors.Is(err, identity.ErrRateLimited):
		return wire.Refuse("Unavailable", "the directory of DIDs refuses further requests for now")
	}
	// The error may name addresses of the network of this machine.
	return wire.Refuse("UpstreamFailure", "%s cannot be looked up now", wire.Echo(name))
}

// identity returns the identity of a DID, from its row if the store has read the document;
// otherwise it looks the document up. The error is a refusal, or an error of the store.
func (r *Records) identity(
	ctx context.Context, q wire.Query, did string,
) (identity.Identity, error) {
	row, err := r.store.Repo(did)
	if err == nil && row.Resolved != 0 {
		return identity.Identity{DID: did, Handle: row.Handle, Key: row.Key, PDS: row.PDS}, nil
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return identity.Identity{}, err
	}
	if r.names == nil {
		return identity.Identity{}, wire.Refuse("DidNotFound",
			"%s is not known here, and nothing is looked up", did)
	}
	ident, err := r.names.Identity(ctx, q.Client, did)
	switch {
	case errors.Is(err, identity.ErrGone):
		err = wire.Refuse("DidDeactivated", "%s was deactivated", did)
	case errors.Is(err, identity.ErrNotFound):
		err = wire.Refuse("DidNotFound", "%s has no document", did)
	case errors.Is(err, identity.ErrInvalid):
		err = wire.Refuse("DidNotFound", "%s has no document of AT Protocol", did)
	default:
		err = lookupRefusal(err, did)
	}
	return ident, err
}

// verified reports whether a handle that an account claims leads to the account. It returns false
// also if the lookup fails. The error is names.ErrLimited: the handle was not looked up.
func (r *Records) verified(ctx context.Context, q wire.Query, handle, did string) (bool, error) {
	if handle == "" || r.names == nil {
		return false, nil
	}
	to, err := r.names.Handle(ctx, q.Client, handle)
	if errors.Is(err, names.ErrLimited) {
		return false, err
	}
	return err == nil && to == did, nil
}

// ResolveHandle answers com.atproto.identity.resolveHandle. Like the reference servers, it does not
// check that the account claims the handle; resolveIdentity does.
func (r *Records) ResolveHandle(ctx context.Context, q wire.Query) (Answer, error) {
	handle, err := handleParameter(q, "handle")
	if err != nil {
		return nil, err
	}
	if handle == "" {
		return nil, wire.Invalid("handle %s is not a handle", wire.Echo(q.Text("handle")))
	}
	did, err := r.didOf(ctx, q, handle)
	if err != nil {
		return nil, err
	}
	return func(context.Context) ([]byte, error) {
		return json.Marshal(struct {
			DID string `json:"did"`
		}{did})
	}, nil
}

// ResolveDID answers com.atproto.identity.resolveDid with the parts of the document that Cistern
// uses.
func (r *Records) ResolveDID(ctx context.Context, q wire.Query) (Answer, error) {
	did, err := q.DID("did")
	if err != nil {
		return nil, err
	}
	ident, err := r.identity(ctx, q, did)
	if err != nil {
		return nil, err
	}
	return func(context.Context) ([]byte, error) {
		return json.Marshal(struct {
			DIDDoc wire.Document `json:"didDoc"`
		}{documentOf(&ident)})
	}, nil
}

type identityInfo struct {
	DID    string        `json:"did"`
	Handle string        `json:"handle"`
	DIDDoc wire.Document `json:"didDoc"`
}

// ResolveIdentity answers com.atproto.identity.resolveIdentity. The handle is verified in both
// directions.
func (r *Records) ResolveIdentity(ctx context.Context, q wire.Query) (Answer, error) {
	ident, handle, err := r.resolve(ctx, q)
	if err != nil {
		return nil, err
	}
	return func(context.Context) ([]byte, error) {
		return json.Marshal(identityInfo{ident.DID, handle, documentOf(&ident)})
	}, nil
}

// resolve returns the identity that the parameter identifier names, and its handle: the handle is
// handle.invalid unless the document claims it, and it leads to the DID.
func (r *Records) resolve(
	ctx context.Context, q wire.Query,
) (ident identity.Identity, handle string, err error) {
	asked, err := handleParameter(q, "identifier")
	if err != nil {
		return ident, "", err
	}
	var did string
	if asked == "" {
		did, err = q.DID("identifier")
	} else {
		did, err = r.didOf(ctx, q, asked)
	}
	if err != nil {
		return ident, "", err
	}
	if ident, err = r.identity(ctx, q, did); err != nil {
		return ident, "", err
	}
	correct := ident.Handle == asked && asked != ""
	if !correct {
		if correct, err = r.verified(ctx, q, ident.Handle, did); err != nil {
			return ident, "", lookupRefusal(err, ident.Handle)
		}
	}
	if !correct {
		return ident, wire.InvalidHandle, nil
	}
	return ident, ident.Handle, nil
}

func documentOf(ident *identity.Identity) wire.Document {
	return wire.NewDocument(ident.DID, ident.Handle, ident.Key, ident.PDS)
}
