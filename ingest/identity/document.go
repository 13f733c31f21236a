package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
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
	PublicKey atcrypto.PublicKey
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
	if ident.PublicKey, err = parsed.PublicKey(); err != nil {
		return Identity{}, fmt.Errorf("document of %s: %w: %w", did, err, ErrNoKey)
	}
	ident.Key = keyText(parsed.Keys["atproto"], ident.PublicKey)
	service, ok := parsed.Services["atproto_pds"]
	if !ok {
		return Identity{}, fmt.Errorf("document of %s: %w", did, ErrNoPDS)
	}
	if ident.PDS, err = parseOrigin(service.URL); err != nil {
		return Identity{}, fmt.Errorf("document of %s: %w: %w", did, err, ErrNoPDS)
	}
	return ident, nil
}

// keyText is the did:key of a method that parsed as key. A Multikey holds it already; compressing the point
// again would double the cost of parsing.
func keyText(method identity.VerificationMethod, key atcrypto.PublicKey) string {
	if method.Type == "Multikey" {
		return "did:key:" + method.PublicKeyMultibase
	}
	return key.DIDKey()
}

// keyTextMax bounds a did:key; those of the curves in use take 57 bytes.
const keyTextMax = 256

// ParseKey parses a signing key in the form of Identity.Key ("did:key:z…"). The error is ErrNoKey.
func ParseKey(text string) (atcrypto.PublicKey, error) {
	if len(text) > keyTextMax {
		return nil, fmt.Errorf("key of %d bytes: %w", len(text), ErrNoKey)
	}
	key, err := atcrypto.ParsePublicDIDKey(text)
	if err != nil {
		return nil, fmt.Errorf("key %q: %w: %w", text, err, ErrNoKey)
	}
	return key, nil
}

// parseOrigin reduces an endpoint to its origin, in one spelling per host: it keys whatever is counted per host.
func parseOrigin(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil {
		return "", fmt.Errorf("endpoint %.200q does not parse", text)
	}
	if u.Scheme != "https" && u.Scheme != "http" {
		return "", fmt.Errorf("endpoint %.200q is not http or https", text)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" || (u.Path != "" && u.Path != "/") {
		return "", fmt.Errorf("endpoint %.200q is more than an origin", text)
	}
	host, err := canonicalHost(u.Hostname())
	if err != nil {
		return "", fmt.Errorf("endpoint %.200q: %w", text, err)
	}
	if strings.HasSuffix(u.Host, ":") {
		return "", fmt.Errorf("endpoint %.200q ends before its port", text)
	}
	if u.Port() != "" {
		port, err := strconv.ParseUint(u.Port(), 10, 16)
		if err != nil || port == 0 {
			return "", fmt.Errorf("endpoint %.200q has no valid port", text)
		}
		if port != map[string]uint64{"https": 443, "http": 80}[u.Scheme] {
			host += ":" + strconv.FormatUint(port, 10)
		}
	}
	return u.Scheme + "://" + host, nil
}

// hostTextMax bounds a host name (RFC 1035: 253 characters).
const hostTextMax = 253

// canonicalHost is one spelling of a DNS name or address, as a URL wants it.
func canonicalHost(host string) (string, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		switch {
		case addr.Zone() != "":
			return "", errors.New("address bound to an interface")
		case addr.Is6():
			return "[" + addr.String() + "]", nil
		}
		return addr.String(), nil
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if len(host) > hostTextMax {
		return "", fmt.Errorf("host name of %d bytes", len(host))
	}
	if host == "" || strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" ||
		strings.HasPrefix(host, ".") || strings.HasSuffix(host, ".") {
		return "", fmt.Errorf("%q is no host name", host)
	}
	return host, nil
}
