package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"cistern/ingest/repo"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/mr-tron/base58"
)

// Identity is what an indexer needs of a DID document.
type Identity struct {
	// DID is the DID that was looked up.
	DID string
	// Handle is the first valid at:// name the document declares, "" for none. It is not verified.
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

// document has the fields of a DID document that are used. DID Core leaves the form of entries
// open: a serviceEndpoint may be a text, an object or a list, a type a text or a list. An entry of
// another form than these fields is skipped (decodeDocument), so that it does not make the others
// unusable.
type document struct {
	ID          string   `json:"id"`
	AlsoKnownAs []string `json:"alsoKnownAs"`
	Methods     []struct {
		ID         string `json:"id"`
		Type       string `json:"type"`
		Controller string `json:"controller"`
		Multibase  string `json:"publicKeyMultibase"`
	} `json:"verificationMethod"`
	Services []struct {
		ID       string `json:"id"`
		Type     any    `json:"type"`
		Endpoint string `json:"serviceEndpoint"`
	} `json:"service"`
}

// decodeDocument reads JSON. Values of another type than their field's are skipped, and leave it
// empty.
func decodeDocument(body []byte) (doc document, err error) {
	err = json.Unmarshal(body, &doc)
	if mismatch := (*json.UnmarshalTypeError)(nil); errors.As(err, &mismatch) {
		err = nil // of the first skipped value: Unmarshal went on after it
	}
	return doc, err
}

// parseDocument turns the bytes of did's document into an Identity (invariant 1).
func parseDocument(did syntax.DID, body []byte) (Identity, error) {
	doc, err := decodeDocument(body)
	if err != nil {
		return Identity{}, fmt.Errorf("decode document of %s: %w: %w", did, err, ErrInvalid)
	}
	if doc.ID == "" {
		return Identity{}, fmt.Errorf("the answer for %s is JSON without an id, and so no DID "+
			"document: %w", did, ErrInvalid)
	}
	if doc.ID != did.String() {
		return Identity{}, fmt.Errorf("document of %s names %.80q: %w", did, doc.ID, ErrInvalid)
	}
	ident := Identity{DID: doc.ID, Handle: doc.handle()}
	if ident.Key, ident.PublicKey, err = doc.key(); err != nil {
		return Identity{}, fmt.Errorf("document of %s: %w", did, err)
	}
	if ident.PDS, err = doc.pds(); err != nil {
		return Identity{}, fmt.Errorf("document of %s: %w", did, err)
	}
	return ident, nil
}

// handle returns the first valid handle among the names of the document, "" for none.
func (d *document) handle() string {
	for _, name := range d.AlsoKnownAs {
		if text, ok := strings.CutPrefix(name, "at://"); ok {
			if handle, err := syntax.ParseHandle(text); err == nil {
				return handle.Normalize().String()
			}
		}
	}
	return ""
}

// key returns the signing key: of the methods named #atproto that the DID itself controls, the
// first with a valid key (https://atproto.com/specs/did). The error is ErrNoKey.
func (d *document) key() (text string, key *repo.Key, err error) {
	err = ErrNoKey
	for _, m := range d.Methods {
		if !strings.HasSuffix(m.ID, "#atproto") || m.Controller != d.ID {
			continue
		}
		text, failure := methodKey(m.Type, m.Multibase)
		if failure == nil {
			key, failure = ParseKey(text)
		}
		if failure == nil {
			return text, key, nil
		}
		if err == ErrNoKey { // the first failure is reported
			err = fmt.Errorf("%w: %w", failure, ErrNoKey)
		}
	}
	return "", nil, err
}

// methodKey returns the did:key of a verification method. A Multikey holds it; the older forms hold
// the bare point.
func methodKey(form, multibase string) (string, error) {
	if form == "Multikey" {
		return "did:key:" + multibase, nil
	}
	encoded, ok := strings.CutPrefix(multibase, "z")
	if !ok || len(multibase) > keyTextMax {
		return "", errors.New("key is not base58btc")
	}
	point, err := base58.Decode(encoded)
	if err != nil {
		return "", fmt.Errorf("key: %w", err)
	}
	var key atcrypto.PublicKey
	switch form {
	case "EcdsaSecp256r1VerificationKey2019":
		key, err = atcrypto.ParsePublicUncompressedBytesP256(point)
	case "EcdsaSecp256k1VerificationKey2019":
		key, err = atcrypto.ParsePublicUncompressedBytesK256(point)
	default:
		err = fmt.Errorf("key is of type %.80q", form)
	}
	if err != nil {
		return "", err
	}
	return key.DIDKey(), nil
}

// pds returns the origin of the account's host: of the first service named #atproto_pds of the type
// of a PDS (https://atproto.com/specs/did). The error is ErrNoPDS.
func (d *document) pds() (string, error) {
	for _, s := range d.Services {
		if !strings.HasSuffix(s.ID, "#atproto_pds") || !isOfType(s.Type, "AtprotoPersonalDataServer") {
			continue
		}
		origin, err := parseEndpoint(s.Endpoint)
		if err != nil {
			return "", fmt.Errorf("%w: %w", err, ErrNoPDS)
		}
		return origin, nil
	}
	return "", ErrNoPDS
}

// isOfType reports whether a type, a text or a list of texts, is or contains want.
func isOfType(form any, want string) bool {
	if list, ok := form.([]any); ok {
		return slices.Contains(list, any(want))
	}
	return form == any(want)
}

// keyTextMax bounds a key in a document or a row: a did:key takes 57 bytes, a point in the older
// form 90.
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

// parseEndpoint returns the origin of a service endpoint, which must have a scheme.
func parseEndpoint(text string) (string, error) {
	if scheme, _, _ := strings.Cut(strings.ToLower(text), "://"); scheme != "https" &&
		scheme != "http" {
		return "", fmt.Errorf("endpoint %.200q is not http or https", text)
	}
	origin, err := ParseOrigin(text)
	if err != nil {
		return "", fmt.Errorf("endpoint %w", err)
	}
	return origin, nil
}
