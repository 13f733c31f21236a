package wire_test

import (
	"fmt"
	"strings"
	"testing"

	"cistern/api/wire"
)

func TestBadDID(t *testing.T) {
	t.Parallel()
	for _, did := range []string{"did:plc:ewvi7nxzyoun6zhxrhs64oiz", "did:web:example.com", "did:web:localhost%3A2583"} {
		if reason := wire.BadDID(did); reason != "" {
			t.Errorf("%s: %s", did, reason)
		}
	}
	for _, did := range []string{
		"", "x", "did:", "did:plc:", "did:plc:EWVI7NXZYOUN6ZHXRHS64OIZ", "did:plc:ewvi7nxzyoun6zhxrhs64oi1", "did:plc:short",
		"did:key:zabc", "did:web:example.com:path", "did:web:", "did:plc:ewvi7nxzyoun6zhxrhs64oiz\n",
		"did:web:" + strings.Repeat("a", 3000), "alice.test",
	} {
		if wire.BadDID(did) == "" {
			t.Errorf("%q passes", fmt.Sprintf("%.50s", did))
		}
	}
}
