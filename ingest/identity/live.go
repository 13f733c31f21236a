package identity

import (
	"context"
	"net"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
)

// Cached is the identity of did if the cache holds a fresh one. It makes no request and never waits
// for one.
func (d *Directory) Cached(did string) (Identity, bool) { panic("not written yet") }

// Remember puts an identity that was read from its document at that time into the cache, unless the
// cache knows the DID already. Its PublicKey may be nil: it is parsed from Key. What is older than
// the TTL, or has a key that cannot be parsed, is not kept.
func (d *Directory) Remember(ident Identity, at time.Time) { panic("not written yet") }

// KeysAt are the signing keys that the PLC directory's audit log of did held valid at some moment up to at,
// newest first, without the one of today's document. Errors as of Resolve.
func (d *Directory) KeysAt(ctx context.Context, did string, at time.Time) ([]atcrypto.PublicKey, error) {
	panic("not written yet")
}

// Dialer is how connections are made to hosts that a stranger can name: the address policy of
// NewTransport as a dial function (ErrPrivateAddress).
func Dialer(o TransportOptions) func(ctx context.Context, network, address string) (net.Conn, error) {
	panic("not written yet")
}
