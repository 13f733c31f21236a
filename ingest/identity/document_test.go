package identity_test

import (
	"errors"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"cistern/ingest/identity"
)

// FuzzParseDocument holds invariant 1 on any bytes: an Identity is whole, or there is an ErrInvalid.
func FuzzParseDocument(f *testing.F) {
	const did = "did:plc:cccccccccccccccccccccccc"
	f.Add([]byte(`{"id":"` + did + `","alsoKnownAs":["at://a.example"],
		"verificationMethod":[{"id":"#atproto","type":"Multikey","controller":"` + did + `",
			"publicKeyMultibase":"zQ3shXjHeiBuRCKmM36cuYnm7YEMzhGnCmCyW92sRJ9pribSF"}],
		"service":[{"id":"#atproto_pds","type":"AtprotoPersonalDataServer","serviceEndpoint":"https://pds.example"}]}`))
	f.Add([]byte(`{"id":"` + did + `","verificationMethod":[{"id":"x#atproto"}],"service":null}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		ident, err := identity.ParseDocument(did, body)
		if err != nil {
			if !errors.Is(err, identity.ErrInvalid) || ident != (identity.Identity{}) {
				t.Errorf("%+v with %v", ident, err)
			}
			return
		}
		key, err := atcrypto.ParsePublicDIDKey(ident.Key)
		if err != nil || key.DIDKey() != ident.PublicKey.DIDKey() {
			t.Errorf("key %q: %v", ident.Key, err)
		}
		if again, err := identity.ParseOrigin(ident.PDS); err != nil || again != ident.PDS || ident.DID != did {
			t.Errorf("%+v: origin %q, %v", ident, again, err)
		}
	})
}
