package identity

import (
	"net"
	"net/http"
	"time"

	"cistern/ingest/repo"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// ParseDocument is parseDocument, for fuzzing without a server.
func ParseDocument(did string, body []byte) (Identity, error) {
	return parseDocument(syntax.DID(did), body)
}

// WrapTransport puts something before the transport of a Directory that makes no requests yet.
func WrapTransport(d *Directory, wrap func(http.RoundTripper) http.RoundTripper) {
	d.client.Transport = wrap(d.client.Transport)
}

// ParseAudit is parseAudit, for fuzzing without a server.
func ParseAudit(did string, body []byte, at time.Time) ([]*repo.Key, error) {
	return parseAudit(syntax.DID(did), body, at)
}

// The limits of audit logs.
const (
	AuditBytesMax = auditBytesMax
	AuditKeysMax  = auditKeysMax
)

// NewGuard is the check of a Dialer that reads the machine's addresses from interfaces.
func NewGuard(interfaces func() ([]net.Addr, error), now func() time.Time) func(network, address string) error {
	g := &addressGuard{interfaces: interfaces, now: now}
	return func(network, address string) error { return g.control(network, address, nil) }
}

// The limits of faults.
const (
	FaultLeast = faultLeast
	WellTime   = wellTime
)
