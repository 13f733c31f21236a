package identity

import "github.com/bluesky-social/indigo/atproto/syntax"

// ParseDocument is parseDocument, for fuzzing without a server.
func ParseDocument(did string, body []byte) (Identity, error) {
	return parseDocument(syntax.DID(did), body)
}

// ParseOrigin is parseOrigin.
func ParseOrigin(text string) (string, error) { return parseOrigin(text) }
