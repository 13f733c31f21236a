package wire

import (
	"fmt"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// DIDBytesMax bounds a DID, as the protocol does.
const DIDBytesMax = 2048

// BadDID returns why did is not a DID of AT Protocol, "" if it is one.
func BadDID(did string) string {
	if len(did) > DIDBytesMax {
		return fmt.Sprintf("longer than %d bytes", DIDBytesMax)
	}
	if _, err := syntax.ParseDID(did); err != nil {
		return "want did:plc:… or did:web:…"
	}
	switch method, rest, _ := strings.Cut(did[len("did:"):], ":"); method {
	case "plc":
		const chars = 24
		if len(rest) != chars || strings.Trim(rest, "abcdefghijklmnopqrstuvwxyz234567") != "" {
			return "want 24 characters of a to z and 2 to 7 after did:plc:"
		}
	case "web":
		if strings.Contains(rest, ":") {
			return "did:web with a path is not part of AT Protocol"
		}
	default:
		return "want the method plc or web"
	}
	return ""
}
