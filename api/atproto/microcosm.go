package atproto

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"cistern/api/wire"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// GetRecordByURI answers blue.microcosm.repo.getRecordByUri: getRecord, with one at-uri instead of
// account, collection and key. Like the service of this name, it answers 404 if the record, or the
// version that the parameter cid names, is not found.
func (r *Records) GetRecordByURI(ctx context.Context, q wire.Query) (Answer, error) {
	text, err := q.Required("at_uri")
	if err != nil {
		return nil, err
	}
	// The authority is checked as a parameter repo is.
	authority, path, _ := strings.Cut(strings.TrimPrefix(text, "at://"), "/")
	collection, rkey, ok := strings.Cut(path, "/")
	if !strings.HasPrefix(text, "at://") || !ok || !validPath(collection, rkey) {
		return nil, wire.Invalid("at_uri %s is not the at-uri of a record: want "+
			"at://ACCOUNT/COLLECTION/KEY", wire.Echo(text))
	}
	q = q.With("repo", authority).With("collection", collection).With("rkey", rkey)
	answer, err := r.OfAccount(r.GetRecord)(ctx, q)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) ([]byte, error) {
		body, err := answer(ctx)
		var refusal *wire.Refusal
		if errors.As(err, &refusal) && refusal.Name == "RecordNotFound" {
			err = &wire.Refusal{Name: refusal.Name, Message: refusal.Message, Status: http.StatusNotFound}
		}
		return body, err
	}, nil
}

func validPath(collection, rkey string) bool {
	_, err := syntax.ParseNSID(collection)
	_, keyErr := syntax.ParseRecordKey(rkey)
	return err == nil && keyErr == nil
}

// miniDoc is a document of a DID without its structure.
type miniDoc struct {
	DID        string `json:"did"`
	Handle     string `json:"handle"`
	PDS        string `json:"pds"`
	SigningKey string `json:"signing_key"`
}

// ResolveMiniDoc answers blue.microcosm.identity.resolveMiniDoc: what resolveIdentity answers, as
// four texts. The key is in the form publicKeyMultibase.
func (r *Records) ResolveMiniDoc(ctx context.Context, q wire.Query) (Answer, error) {
	ident, handle, err := r.resolve(ctx, q)
	if err != nil {
		return nil, err
	}
	if ident.PDS == "" || ident.Key == "" {
		return nil, wire.Refuse("DidNotFound", "the document of %s names no host or no key", ident.DID)
	}
	return func(context.Context) ([]byte, error) {
		return json.Marshal(miniDoc{ident.DID, handle, ident.PDS, wire.Multibase(ident.Key)})
	}, nil
}
