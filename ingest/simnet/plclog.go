package simnet

import (
	"encoding/base64"
	"net/http"
	"time"

	"cistern/ingest/repo"
)

// plcOp is one operation of the PLC directory on an account: its document after the operation.
type plcOp struct {
	at        time.Time
	key       *signer
	handle    string
	host      *Host
	tombstone bool
}

// logPLC adds an operation with the current document, at a time later than all revs so far. Called
// with mu held.
func (a *Account) logPLC() {
	a.plc = append(a.plc, plcOp{a.stamp(), a.key, a.handle, a.host, a.tombstoned})
}

// writeAuditLog answers GET /{did}/log/audit.
func (a *Account) writeAuditLog(w http.ResponseWriter) {
	a.mu.Lock()
	ops := a.plc
	a.mu.Unlock()
	rotation := newSigner(a.net.derive("rotation", a.index, 0), false)
	entries := make([]any, 0, len(ops))
	var prev any
	for _, op := range ops {
		signed, encoded := op.encode(rotation, prev)
		cid := repo.HashCID(encoded).String()
		entries = append(entries, map[string]any{
			"did": a.did, "operation": signed, "cid": cid, "nullified": false, "createdAt": datetime(op.at),
		})
		prev = cid
	}
	writeJSON(w, http.StatusOK, entries)
}

// encode returns the signed operation after prev, as a map and as DAG-CBOR.
func (op plcOp) encode(rotation *signer, prev any) (map[string]any, []byte) {
	fields := map[string]any{"type": "plc_tombstone", "prev": prev}
	if !op.tombstone {
		fields = map[string]any{
			"type": "plc_operation", "prev": prev,
			"rotationKeys":        []any{"did:key:" + rotation.text},
			"verificationMethods": map[string]any{"atproto": "did:key:" + op.key.text},
			"alsoKnownAs":         []any{"at://" + op.handle},
			"services": map[string]any{"atproto_pds": map[string]any{
				"type": "AtprotoPersonalDataServer", "endpoint": op.host.URL(),
			}},
		}
	}
	fields["sig"] = base64.RawURLEncoding.EncodeToString(rotation.sign(appendValue(nil, fields)))
	return fields, appendValue(nil, fields)
}
