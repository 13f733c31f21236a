package identity

import (
	"encoding/json"
	"fmt"
	"strings"

	"cistern/ingest/repo"

	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Identity is what an indexer needs of a DID document.
type Identity struct {
	// DID is the one that was asked for.
	DID string
	// Handle is the first valid at:// name the document declares, "" for none. Nobody verified it.
	Handle string
	// PDS is the origin of the account's host: scheme, host and port (unless it is the
	// scheme's own), lower case, without a trailing slash.
	PDS string
	// Key is the signing key as a did:key, the same text for every form of document.
	Key string
	// PublicKey is Key, parsed.
	PublicKey *repo.Key
}

// didTextMax bounds a DID (https://atproto.com/specs/did: 2048 bytes).
const didTextMax = 2048

// parseDID checks the syntax and the method.
func parseDID(text string) (syntax.DID, error) {
	if len(text) > didTextMax {
		return "", fmt.Errorf("DID of %d bytes: %w", len(text), ErrInvalid)
	}
	did, err := syntax.ParseDID(text)
	if err != nil {
		return "", fmt.Errorf("DID %.80q: %w: %w", text, err, ErrInvalid)
	}
	return did, nil
}

// parseDocument turns the bytes of did's document into an Identity (invariant 1).
func parseDocument(did syntax.DID, body []byte) (Identity, error) {
	var doc identity.DIDDocument
	if err := json.Unmarshal(body, &doc); err != nil {
		return Identity{}, fmt.Errorf("decode document of %s: %w: %w", did, err, ErrInvalid)
	}
	if doc.DID != did {
		return Identity{}, fmt.Errorf("document of %s names %.80q: %w", did, doc.DID, ErrInvalid)
	}
	parsed := identity.ParseIdentity(&doc)
	ident := Identity{DID: did.String()}
	if handle, err := parsed.DeclaredHandle(); err == nil {
		ident.Handle = handle.String()
	}
	var err error
	if ident.Key, err = keyText(parsed); err != nil {
		return Identity{}, fmt.Errorf("document of %s: %w: %w", did, err, ErrNoKey)
	}
	if ident.PublicKey, err = ParseKey(ident.Key); err != nil {
		return Identity{}, fmt.Errorf("document of %s: %w", did, err)
	}
	service, ok := parsed.Services["atproto_pds"]
	if !ok {
		return Identity{}, fmt.Errorf("document of %s: %w", did, ErrNoPDS)
	}
	if ident.PDS, err = parseEndpoint(service.URL); err != nil {
		return Identity{}, fmt.Errorf("document of %s: %w: %w", did, err, ErrNoPDS)
	}
	return ident, nil
}

// keyText is the signing key as a did:key. A Multikey holds it already.
func keyText(parsed identity.Identity) (string, error) {
	if method := parsed.Keys["atproto"]; method.Type == "Multikey" {
		return "did:key:" + method.PublicKeyMultibase, nil
	}
	key, err := parsed.PublicKey()
	if err != nil {
		return "", err
	}
	return key.DIDKey(), nil
}

// keyTextMax bounds a did:key; those of the curves in use take 57 bytes.
const keyTextMax = 256

// ParseKey parses a signing key in the form of Identity.Key ("did:key:z…"). The error is ErrNoKey.
func ParseKey(text string) (*repo.Key, error) {
	if len(text) > keyTextMax {
		return nil, fmt.Errorf("key of %d bytes: %w", len(text), ErrNoKey)
	}
	key, err := repo.ParseKey(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrNoKey)
	}
	return key, nil
}

// parseEndpoint is the origin of a service, which a document names with its scheme.
func parseEndpoint(text string) (string, error) {
	if scheme, _, _ := strings.Cut(strings.ToLower(text), "://"); scheme != "https" && scheme != "http" {
		return "", fmt.Errorf("endpoint %.200q is not http or https", text)
	}
	origin, err := ParseOrigin(text)
	if err != nil {
		return "", fmt.Errorf("endpoint %w", err)
	}
	return origin, nil
}
