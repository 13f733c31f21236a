package identity

import "github.com/bluesky-social/indigo/atproto/syntax"

// ParseDocument is parseDocument, for fuzzing without a server.
func ParseDocument(did string, body []byte) (Identity, error) {
	return parseDocument(syntax.DID(did), body)
}

// CheckRedirect is checkRedirect.
var CheckRedirect = checkRedirect

// ParseOrigin is parseOrigin.
func ParseOrigin(text string) (string, error) { return parseOrigin(text) }
