package simnet

import (
	"net/http"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/mr-tron/base58"
)

// auditLog is the endpoint of a DID's history.
const auditLog = "log/audit"

// servePLC answers GET /{did} and GET /{did}/log/audit as the PLC directory does.
func (n *Network) servePLC(w http.ResponseWriter, _ *http.Request, c call) {
	a := n.Account(c.did)
	if a == nil {
		writeJSON(w, http.StatusNotFound, map[string]any{"message": "DID not registered: " + c.did})
		return
	}
	if c.endpoint == auditLog {
		a.writeAuditLog(w)
		return
	}
	doc, ok := a.document()
	if !ok {
		writeJSON(w, http.StatusGone, map[string]any{"message": "DID not available: " + c.did})
		return
	}
	w.Header().Set("Content-Type", "application/did+ld+json; charset=utf-8")
	writeBody(w, doc)
}

// document returns the account's DID document, and false if it has a tombstone.
func (a *Account) document() (map[string]any, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.tombstoned {
		return nil, false
	}
	services := []any{map[string]any{
		"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": a.host.URL(),
	}}
	if a.net.opts.Clutter {
		services = append([]any{
			map[string]any{"id": "#didcomm", "type": "DIDCommMessaging",
				"serviceEndpoint": map[string]any{"uri": "https://didcomm.test"}},
			map[string]any{"id": "#files", "type": []string{"LinkedDomains"},
				"serviceEndpoint": []string{"https://files.test"}},
		}, services...)
	}
	return map[string]any{
		"@context": []string{"https://www.w3.org/ns/did/v1",
			"https://w3id.org/security/multikey/v1"},
		"id":                 a.did,
		"alsoKnownAs":        []string{"at://" + a.handle},
		"verificationMethod": []any{verificationMethod(a.did, a.key, a.legacy)},
		"service":            services,
	}, true
}

// verificationMethod returns a signing key in the current form, or in the form before Multikey:
// relative id, a type per curve, the point uncompressed.
func verificationMethod(did string, k *signer, legacy bool) map[string]any {
	vm := map[string]any{"id": did + "#atproto", "type": "Multikey", "controller": did}
	if !legacy {
		vm["publicKeyMultibase"] = k.text
		return vm
	}
	vm["id"] = "#atproto"
	switch key := k.public.(type) {
	case *atcrypto.PublicKeyK256:
		vm["type"] = "EcdsaSecp256k1VerificationKey2019"
		vm["publicKeyMultibase"] = "z" + base58.Encode(key.UncompressedBytes())
	case *atcrypto.PublicKeyP256:
		vm["type"] = "EcdsaSecp256r1VerificationKey2019"
		vm["publicKeyMultibase"] = "z" + base58.Encode(key.UncompressedBytes())
	}
	return vm
}
