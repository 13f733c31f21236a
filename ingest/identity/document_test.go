package identity_test

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atcrypto"

	"cistern/ingest/identity"
)

// FuzzParseDocument checks invariant 1 on any bytes: the Identity is complete, or the error is
// ErrInvalid.
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

// TestDocumentForms has documents in the forms that DID Core allows (https://www.w3.org/TR/did-1.0): entries that
// are not the account's key or host have any form and are ignored; of those that are, the specification of
// atproto says which one counts.
func TestDocumentForms(t *testing.T) {
	t.Parallel()
	const did = "did:plc:cccccccccccccccccccccccc"
	const host = "https://host.example"
	keys := newKeys(t, 2)
	method := func(id, form, controller, key string) string {
		return fmt.Sprintf(`{"id":%q,"type":%q,"controller":%q,"publicKeyMultibase":%q}`, id, form, controller, strings.TrimPrefix(key, "did:key:"))
	}
	service := func(id, form, endpoint string) string {
		return fmt.Sprintf(`{"id":%q,"type":%s,"serviceEndpoint":%s}`, id, form, endpoint)
	}
	list := func(entries ...string) string { return "[" + strings.Join(entries, ",") + "]" }
	const pdsType = `"AtprotoPersonalDataServer"`
	key := method(did+"#atproto", "Multikey", did, keys[0])
	pds := service("#atproto_pds", pdsType, `"`+host+`"`)
	for _, row := range []struct {
		why               string
		names             string // default none
		methods, services string // default: the plain key and host
		err               error  // nil: the plain key and host are found
	}{
		{why: "an endpoint that is an object", services: list(service("#didcomm", `"DIDCommMessaging"`, `{"uri":"https://c.example","accept":["didcomm/v2"]}`), pds)},
		{why: "an endpoint that is a list", services: list(service("#files", `"LinkedDomains"`, `["https://a.example","https://b.example"]`), pds)},
		{why: "an endpoint that is a list of objects", services: list(pds, service("#files", `"LinkedDomains"`, `[{"a":["https://a.example"]}]`))},
		{why: "a type that is a list", services: list(service("#files", `["LinkedDomains","Other"]`, `"https://a.example"`), pds)},
		{why: "a host whose type is a list", services: list(service("#atproto_pds", `["Other",`+pdsType+`]`, `"`+host+`"`))},
		{why: "a service that is a text", services: list(`"https://a.example"`, pds)},
		{why: "a service that is null", services: list(`null`, pds)},
		{why: "a service whose id is a number", services: list(service("#x", `"X"`, `7`), `{"id":7}`, pds)},
		{why: "a host named by the whole DID", services: list(service(did+"#atproto_pds", pdsType, `"`+host+`"`))},
		{why: "the first host counts", services: list(pds, service("#atproto_pds", pdsType, `"https://other.example"`))},
		{why: "a host of another type does not count", services: list(service("#atproto_pds", `"Other"`, `"https://other.example"`), pds)},
		{why: "a service with another name does not count", services: list(service("#pds", pdsType, `"https://other.example"`), pds)},
		{why: "the first host counts, usable or not", services: list(service("#atproto_pds", pdsType, `{"uri":"https://other.example"}`), pds), err: identity.ErrNoPDS},
		{why: "services that are no list", services: `{"id":"#atproto_pds"}`, err: identity.ErrNoPDS},
		{why: "a key that is a text", methods: list(`"did:example:a#key"`, key)},
		{why: "a key that is a JWK", methods: list(`{"id":"#jwk","type":"JsonWebKey2020","controller":"`+did+`","publicKeyJwk":{"kty":"EC"}}`, key)},
		{why: "a key whose controller is a list", methods: list(`{"id":"#x","type":["A"],"controller":["`+did+`"],"publicKeyMultibase":{}}`, key)},
		{why: "a key of another controller does not count", methods: list(method("#atproto", "Multikey", "did:plc:dddddddddddddddddddddddd", keys[1]), key)},
		{why: "a key of another name does not count", methods: list(method("#atproto_label", "Multikey", did, keys[1]), key)},
		{why: "an invalid key does not count", methods: list(method("#atproto", "Multikey", did, "zzz"), method("#atproto", "Ed25519VerificationKey2020", did, keys[1]), key)},
		{why: "the first valid key counts", methods: list(key, method("#atproto", "Multikey", did, keys[1]))},
		{why: "keys that are no list", methods: `"#atproto"`, err: identity.ErrNoKey},
		{why: "names that are no texts", names: `[7,{"at":"at://no.example"},"https://a.example","at://a.example"]`},
		{why: "names that are no list", names: `{"at":"at://a.example"}`},
	} {
		body := fmt.Sprintf(`{"id":%q,"alsoKnownAs":%s,"verificationMethod":%s,"service":%s}`, did,
			cmp.Or(row.names, "[]"), cmp.Or(row.methods, list(key)), cmp.Or(row.services, list(pds)))
		got, err := identity.ParseDocument(did, []byte(body))
		if !errors.Is(err, row.err) {
			t.Errorf("%s: %v, want %v", row.why, err, row.err)
		}
		if row.err == nil && (got.Key != keys[0] || got.PDS != host) {
			t.Errorf("%s: %+v", row.why, got)
		}
		if strings.HasPrefix(row.names, "[") && got.Handle != "a.example" {
			t.Errorf("%s: handle %q", row.why, got.Handle)
		}
	}
}
