package api

import (
	"encoding/json"
	"errors"
	"strings"

	"cistern/store"
)

// held is the row of a repository that we hold a copy of, or a refusal.
func (s *Server) held(did string) (store.Repo, error) {
	row, err := s.store.Repo(did)
	if errors.Is(err, store.ErrNotFound) || err == nil && row.Rev == "" && !row.Status.Hidden() {
		return row, refuse("RepoNotFound", "could not find repo for DID: %s", did)
	}
	return row, err
}

// visible is the gate of every query for what is in a repository (invariant 2).
func (s *Server) visible(did string) (store.Repo, error) {
	row, err := s.held(did)
	if err != nil {
		return row, err
	}
	switch row.Status {
	case store.StatusActive:
		return row, nil
	case store.StatusTakendown:
		return row, refuse("RepoTakendown", "repo has been takendown: %s", did)
	case store.StatusSuspended:
		return row, refuse("RepoSuspended", "repo has been suspended: %s", did)
	case store.StatusDeactivated:
		return row, refuse("RepoDeactivated", "repo has been deactivated: %s", did)
	case store.StatusInactive: // for a reason that the protocol has no word for
		return row, refuse("RepoDeactivated", "repo is not active: %s", did)
	default: // deleted, or not known to its host
		return row, refuse("RepoNotFound", "could not find repo for DID: %s", did)
	}
}

// handleInvalid is the protocol's word for a handle that is missing or wrong.
const handleInvalid = "handle.invalid"

type description struct {
	Handle          string      `json:"handle"`
	DID             string      `json:"did"`
	DIDDoc          didDocument `json:"didDoc"`
	Collections     []string    `json:"collections"`
	HandleIsCorrect bool        `json:"handleIsCorrect"`
}

// didDocument is the part of a DID document that we know.
type didDocument struct {
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

// describeRepo is com.atproto.repo.describeRepo. The document is what was last resolved; handles are
// as it claims them, unverified.
func (s *Server) describeRepo(q query) ([]byte, error) {
	did, err := q.did("repo")
	if err != nil {
		return nil, err
	}
	row, err := s.visible(did)
	if err != nil {
		return nil, err
	}
	collections, err := s.store.Collections(&row)
	if err != nil {
		return nil, err
	}
	if collections == nil {
		collections = []string{}
	}
	d := description{Handle: row.Handle, DID: did, DIDDoc: document(&row), Collections: collections}
	if d.Handle == "" {
		d.Handle = handleInvalid
	}
	return json.Marshal(d)
}

// multibase is the key of a did:key, as documents have it.
func multibase(key string) string { return strings.TrimPrefix(key, "did:key:") }

func document(row *store.Repo) didDocument {
	d := didDocument{Context: []string{"https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1"}, ID: row.DID}
	if row.Handle != "" {
		d.AlsoKnownAs = []string{"at://" + row.Handle}
	}
	if row.Key != "" {
		d.VerificationMethod = []verificationMethod{{row.DID + "#atproto", "Multikey", row.DID, multibase(row.Key)}}
	}
	if row.PDS != "" {
		d.Service = []service{{"#atproto_pds", "AtprotoPersonalDataServer", row.PDS}}
	}
	return d
}
