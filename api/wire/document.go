package wire

import "strings"

// InvalidHandle is the protocol's word for a handle that is missing or wrong.
const InvalidHandle = "handle.invalid"

// Document is the part of a DID document that the store has.
type Document struct {
	Context            []string             `json:"@context"`
	ID                 string               `json:"id"`
	AlsoKnownAs        []string             `json:"alsoKnownAs,omitempty"`
	VerificationMethod []verificationMethod `json:"verificationMethod,omitempty"`
	Service            []service            `json:"service,omitempty"`
}

type verificationMethod struct {
	ID         string `json:"id"`
	Type       string `json:"type"`
	Controller string `json:"controller"`
	PublicKey  string `json:"publicKeyMultibase"`
}

type service struct {
	ID       string `json:"id"`
	Type     string `json:"type"`
	Endpoint string `json:"serviceEndpoint"`
}

// NewDocument returns the document of a DID. Its handle, key (a did:key or its multibase form) and
// host are left out if they are "".
func NewDocument(did, handle, key, pds string) Document {
	d := Document{ID: did, Context: []string{
		"https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1"}}
	key = Multibase(key)
	if suite := keySuite(key); suite != "" {
		d.Context = append(d.Context, suite)
	}
	if handle != "" {
		d.AlsoKnownAs = []string{"at://" + handle}
	}
	if key != "" {
		d.VerificationMethod = []verificationMethod{{did + "#atproto", "Multikey", did, key}}
	}
	if pds != "" {
		d.Service = []service{{"#atproto_pds", "AtprotoPersonalDataServer", pds}}
	}
	return d
}

// Multibase returns the key of a did:key in the form that documents use.
func Multibase(key string) string { return strings.TrimPrefix(key, "did:key:") }

// keySuite returns the context that the PLC directory adds for the curve of a key, "" if the curve
// is unknown.
func keySuite(multibase string) string {
	switch {
	case strings.HasPrefix(multibase, "zQ3s"):
		return "https://w3id.org/security/suites/secp256k1-2019/v1"
	case strings.HasPrefix(multibase, "zDn"):
		return "https://w3id.org/security/suites/ecdsa-2019/v1"
	}
	return ""
}
