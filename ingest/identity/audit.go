package identity

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"cistern/ingest/repo"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

const (
	// auditBytesMax bounds an audit log. An operation takes 1 to 2 KiB in it, and the directory takes
	// 100 in a week at most: 4 MiB hold half a year at that rate.
	auditBytesMax = 4 << 20

	// auditSkew bounds the difference between the clocks of the directory and of the host that made
	// a commit.
	auditSkew = 5 * time.Minute

	// auditKeysMax bounds the keys returned: trying each costs the verification of a signature.
	auditKeysMax = 8
)

// auditEntry is an operation in the log of the PLC directory
// (https://web.plc.directory/spec/v0.1/did-plc). Operations of type create were made
// before 2023.
type auditEntry struct {
	DID       syntax.DID `json:"did"`
	Nullified bool       `json:"nullified"`
	CreatedAt time.Time  `json:"createdAt"`
	Operation struct {
		Type                string            `json:"type"`
		SigningKey          string            `json:"signingKey"`          // of create
		VerificationMethods map[string]string `json:"verificationMethods"` // of plc_operation
	} `json:"operation"`
}

// key returns the signing key that the operation set, "" if it set none.
func (e auditEntry) key() string {
	switch e.Operation.Type {
	case "plc_operation":
		return e.Operation.VerificationMethods["atproto"]
	case "create":
		return e.Operation.SigningKey
	}
	return ""
}

// KeysAt returns the signing keys that were in force within 5 minutes of a time, by the PLC
// directory's audit log of did: each from its operation until the next that was not nullified. The
// newest is first. The key of today's document is left out, since the caller has tried it. Errors
// are those of Resolve, and ErrNoLog for DIDs of another method. Answers are not cached: only a
// repository with a failing signature needs them.
func (d *Directory) KeysAt(ctx context.Context, did string, at time.Time) ([]*repo.Key, error) {
	parsed, err := parseDID(did)
	if err != nil {
		return nil, err
	}
	if parsed.Method() != "plc" {
		return nil, fmt.Errorf("history of %s: %w", parsed, ErrNoLog)
	}
	ctx, cancel := d.limited(ctx)
	defer cancel()
	body, err := d.fetchPLC(ctx, parsed, "/log/audit", auditBytesMax)
	var keys []*repo.Key
	if err == nil {
		keys, err = parseAudit(parsed, body, at)
	}
	d.metrics.fetches.WithLabelValues("audit", outcome(err)).Inc()
	return keys, err
}

// parseAudit reads did's log. A key that cannot be parsed is left out: it verifies no signature.
func parseAudit(did syntax.DID, body []byte, at time.Time) ([]*repo.Key, error) {
	var log []auditEntry
	if err := json.Unmarshal(body, &log); err != nil {
		return nil, fmt.Errorf("decode audit log of %s: %w: %w", did, err, ErrInvalid)
	}
	for _, e := range log {
		if e.DID != did || e.CreatedAt.IsZero() {
			return nil, fmt.Errorf("audit log of %s has an entry of %.80q at %s: %w",
				did, e.DID, e.CreatedAt, ErrInvalid)
		}
	}
	log = slices.DeleteFunc(log, func(e auditEntry) bool { return e.Nullified })
	if len(log) == 0 {
		return nil, fmt.Errorf("audit log of %s is empty: %w", did, ErrInvalid)
	}
	slices.SortStableFunc(log, func(a, b auditEntry) int { return a.CreatedAt.Compare(b.CreatedAt) })
	slices.Reverse(log) // newest first; of the same time, the later entry first
	if log[0].Operation.Type == "plc_tombstone" {
		return nil, fmt.Errorf("audit log of %s: %w", did, ErrGone)
	}
	seen := map[string]bool{log[0].key(): true, "": true} // today's key, and no key
	var keys []*repo.Key
	for i, e := range log[1:] {
		text, until := e.key(), log[i].CreatedAt
		if e.CreatedAt.After(at.Add(auditSkew)) || seen[text] {
			continue
		}
		if until.Before(at.Add(-auditSkew)) {
			break // all earlier entries ended before it
		}
		seen[text] = true
		if key, err := ParseKey(text); err == nil {
			keys = append(keys, key)
		}
		if len(keys) == auditKeysMax {
			break
		}
	}
	return keys, nil
}
