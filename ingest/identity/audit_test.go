package identity_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/prometheus/client_golang/prometheus"

	"cistern/ingest/identity"
	"cistern/ingest/repo"
	"cistern/ingest/simnet"
)

const auditDID = "did:plc:cccccccccccccccccccccccc"

// auditBase is when the first operation of a log was made.
var auditBase = time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC)

// newKeys returns n keys as did:key, of both curves.
func newKeys(t testing.TB, n int) (keys []string) {
	t.Helper()
	for i := range n {
		var key atcrypto.PrivateKeyExportable
		var err error
		if i%2 == 0 {
			key, err = atcrypto.GeneratePrivateKeyK256()
		} else {
			key, err = atcrypto.GeneratePrivateKeyP256()
		}
		if err != nil {
			t.Fatal(err)
		}
		public, err := key.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, public.DIDKey())
	}
	return keys
}

// op is an entry of a log, hours after auditBase.
type op struct {
	hours     int
	typ, key  string
	nullified bool
	did       string // default auditDID
}

func auditLog(t testing.TB, ops ...op) string {
	t.Helper()
	entries := []any{}
	for _, o := range ops {
		operation := map[string]any{"type": o.typ, "prev": nil, "sig": "x"}
		switch o.typ {
		case "create":
			operation["signingKey"], operation["recoveryKey"] = o.key, "did:key:zOther"
		case "plc_operation":
			operation["verificationMethods"] = map[string]any{"atproto": o.key, "other": "did:key:zOther"}
			operation["rotationKeys"] = []any{"did:key:zOther"}
		}
		did := auditDID
		if o.did != "" {
			did = o.did
		}
		entries = append(entries, map[string]any{
			"did": did, "operation": operation, "cid": "bafy", "nullified": o.nullified,
			"createdAt": auditBase.Add(time.Duration(o.hours) * time.Hour).Format("2006-01-02T15:04:05.000Z"),
		})
	}
	b, err := json.Marshal(entries)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func texts(keys []*repo.Key) (out []string) {
	for _, k := range keys {
		out = append(out, k.DIDKey())
	}
	return out
}

func TestKeysAt(t *testing.T) {
	t.Parallel()
	k := newKeys(t, 4)
	const set = "plc_operation"
	var many []op
	for _, key := range newKeys(t, identity.AuditKeysMax+3) {
		many = append(many, op{typ: set, key: key})
	}
	var newest []string
	for _, o := range slices.Backward(many[2 : len(many)-1]) {
		newest = append(newest, o.key)
	}
	three := auditLog(t, op{typ: set, key: k[0]}, op{hours: 2, typ: set, key: k[1]}, op{hours: 3, typ: set, key: k[2]})
	const skew, tick = 5 * time.Minute, time.Millisecond
	for _, row := range []struct {
		why  string
		log  string
		at   time.Duration // after auditBase
		want []string
		err  error
	}{
		{"one key, today's", auditLog(t, op{typ: set, key: k[0]}), time.Hour, nil, nil},
		{"the one before", auditLog(t, op{typ: set, key: k[0]}, op{hours: 5, typ: set, key: k[1]}), time.Hour, k[:1], nil},
		{"a legacy operation", auditLog(t, op{typ: "create", key: k[0]}, op{hours: 5, typ: set, key: k[1]}), time.Hour, k[:1], nil},
		{"not those of later", three, time.Hour, k[:1], nil},
		{"not the earlier ones", three, 2*time.Hour + 30*time.Minute, k[1:2], nil},
		{"nor any but today's once that is in force", three, 9 * time.Hour, nil, nil},
		{"before the account began", three, -time.Hour, nil, nil},
		{"our clock may be ahead by minutes", three, 2*time.Hour - skew, []string{k[1], k[0]}, nil},
		{"but not by more", three, 2*time.Hour - skew - tick, k[:1], nil},
		{"or behind by minutes, newest first", three, 2*time.Hour + skew, []string{k[1], k[0]}, nil},
		{"but not by more either", three, 2*time.Hour + skew + tick, k[1:2], nil},
		{"a key that was rotated out is good for minutes", three, 3*time.Hour + skew, k[1:2], nil},
		{"and not for longer", three, 3*time.Hour + skew + tick, nil, nil},
		{"nor a year later", three, 365 * 24 * time.Hour, nil, nil},
		{"operations that leave the key alone", auditLog(t, op{typ: set, key: k[0]}, op{hours: 1, typ: set, key: k[0]}, op{hours: 2, typ: set, key: k[0]}, op{hours: 3, typ: set, key: k[1]}),
			90 * time.Minute, k[:1], nil},
		{"nullified operations never held", auditLog(t, op{typ: set, key: k[0]}, op{hours: 1, typ: set, key: k[1], nullified: true}, op{hours: 2, typ: set, key: k[2]}),
			90 * time.Minute, k[:1], nil},
		{"nor does a nullified one hold today", auditLog(t, op{typ: set, key: k[0]}, op{hours: 1, typ: set, key: k[1]}, op{hours: 2, typ: set, key: k[2], nullified: true}),
			30 * time.Minute, k[:1], nil},
		{"today's key is not given though it held then", auditLog(t, op{typ: set, key: k[0]}, op{hours: 1, typ: set, key: k[1]}, op{hours: 2, typ: set, key: k[0]}),
			time.Hour, k[1:2], nil},
		{"a key that held twice is good for both times", auditLog(t, op{typ: set, key: k[0]}, op{hours: 1, typ: set, key: k[1]}, op{hours: 2, typ: set, key: k[0]}, op{hours: 3, typ: set, key: k[2]}),
			30 * time.Minute, k[:1], nil},
		{"but not between them", auditLog(t, op{typ: set, key: k[0]}, op{hours: 1, typ: set, key: k[1]}, op{hours: 2, typ: set, key: k[0]}, op{hours: 3, typ: set, key: k[2]}),
			90 * time.Minute, k[1:2], nil},
		{"and is given once", auditLog(t, op{typ: set, key: k[0]}, op{typ: set, key: k[1]}, op{typ: set, key: k[0]}, op{hours: 3, typ: set, key: k[2]}),
			0, k[:2], nil},
		{"operations of one moment stand in their order", auditLog(t, op{typ: set, key: k[0]}, op{typ: set, key: k[1]}, op{typ: set, key: k[2]}),
			0, []string{k[1], k[0]}, nil},
		{"a key of no curve we know is left out", auditLog(t, op{typ: set, key: k[1]}, op{typ: set, key: "did:key:zzz"}, op{hours: 2, typ: set}),
			0, k[1:2], nil},
		{"an operation of a type unknown to us sets none", auditLog(t, op{typ: set, key: k[0]}, op{hours: 1, typ: "novel", key: k[1]}, op{hours: 2, typ: set, key: k[2]}),
			time.Hour, k[:1], nil},
		{"so that the previous key ends", auditLog(t, op{typ: set, key: k[0]}, op{hours: 1, typ: "novel", key: k[1]}, op{hours: 2, typ: set, key: k[2]}),
			90 * time.Minute, nil, nil},
		{"as many as there may be", auditLog(t, many...), 0, newest, nil},
		{"a tombstone", auditLog(t, op{typ: set, key: k[0]}, op{hours: 1, typ: "plc_tombstone"}), 30 * time.Minute, nil, identity.ErrNotFound},
		{"a tombstone taken back", auditLog(t, op{typ: set, key: k[0]}, op{hours: 1, typ: "plc_tombstone", nullified: true}, op{hours: 2, typ: set, key: k[1]}),
			90 * time.Minute, k[:1], nil},
	} {
		d := newDirectory(t, identity.Options{PLC: []string{serveDocument(t, row.log)}})
		got, err := d.KeysAt(t.Context(), auditDID, auditBase.Add(row.at))
		if !errors.Is(err, row.err) || !slices.Equal(texts(got), row.want) {
			t.Errorf("%s: %v, %v; want %v, %v", row.why, texts(got), err, row.want, row.err)
		}
	}
}

func TestKeysAtOfBadLogs(t *testing.T) {
	t.Parallel()
	good := op{typ: "plc_operation", key: newKeys(t, 1)[0]}
	foreign := good
	foreign.did = "did:plc:dddddddddddddddddddddddd"
	for why, log := range map[string]string{
		"of another DID": auditLog(t, foreign),
		"nothing":        "[]",
		"null":           "null",
		"no time":        `[{"did":"` + auditDID + `","operation":{"type":"create"}}]`,
		"without end":    strings.Repeat(" ", identity.AuditBytesMax) + auditLog(t, good),
	} {
		d := newDirectory(t, identity.Options{PLC: []string{serveDocument(t, log)}})
		if got, err := d.KeysAt(t.Context(), auditDID, auditBase); !errors.Is(err, identity.ErrInvalid) || got != nil {
			t.Errorf("%s: %v, %v", why, texts(got), err)
		}
	}
}

func TestKeysAtOfTheNetwork(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Repos: 2, P256Every: 2})
	reg := prometheus.NewRegistry()
	d := newDirectory(t, identity.Options{PLC: []string{n.PLC()}, Registerer: reg})
	for _, a := range n.Accounts() {
		before := a.Truth()
		a.RotateKey()
		for after, want := range map[time.Duration][]string{0: {before.Key}, 1000 * time.Hour: nil} {
			keys, err := d.KeysAt(t.Context(), a.DID(), repo.TIDTime(before.Rev).Add(after))
			if err != nil || !slices.Equal(texts(keys), want) {
				t.Errorf("%s, %s after its rev: %v, %v; want %s", a.DID(), after, texts(keys), err, want)
			}
		}
	}
	if n := fetches(t, reg, "audit", "ok"); n != 4 {
		t.Errorf("%v fetches were counted", n)
	}
}

// The directories are asked in turn, within one lookup's time, as for documents.
func TestKeysAtFallsBack(t *testing.T) {
	t.Parallel()
	k := newKeys(t, 2)
	log := auditLog(t, op{typ: "plc_operation", key: k[0]}, op{hours: 1, typ: "plc_operation", key: k[1]})
	for _, row := range []struct {
		why   string
		first http.HandlerFunc
		then  bool // the second directory is asked
		want  error
	}{
		{"a directory without logs", http.NotFound, true, nil},
		{"one that fails", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, true, nil},
		{"one that limits", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(429) }, true, nil},
		{"one that hangs", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, true, nil},
		{"one that says gone", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(410) }, false, identity.ErrNotFound},
	} {
		var asked atomic.Int32
		first := httptest.NewServer(row.first)
		second := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			if r.URL.Path != "/"+auditDID+"/log/audit" {
				w.WriteHeader(http.StatusTeapot)
			}
			fmt.Fprint(w, log)
		}))
		d := newDirectory(t, identity.Options{PLC: []string{first.URL, second.URL}, Timeout: time.Second})
		keys, err := d.KeysAt(t.Context(), auditDID, auditBase.Add(30*time.Minute))
		if !isClass(err, row.want) || (err == nil) != (len(keys) == 1) || (asked.Load() == 1) != row.then {
			t.Errorf("%s: %v, %v, the second was asked %d times", row.why, texts(keys), err, asked.Load())
		}
		first.Close()
		second.Close()
	}
}

func TestKeysAtIsBoundedInTime(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "[")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer server.Close()
	d := newDirectory(t, identity.Options{PLC: []string{server.URL}, Timeout: 50 * time.Millisecond})
	if _, err := d.KeysAt(t.Context(), auditDID, auditBase); !isClass(err, errTransient) {
		t.Errorf("%v", err)
	}
}

func TestKeysAtOfOtherDIDs(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer server.Close()
	d := newDirectory(t, identity.Options{PLC: []string{server.URL}})
	for did, want := range map[string]error{
		"did:web:host.example":  identity.ErrNoLog,
		"did:key:zQ3shXjHeiBuR": identity.ErrNoLog,
		"did:plc:short":         identity.ErrInvalid,
		"did:plc:../../../x":    identity.ErrInvalid,
		"nothing":               identity.ErrInvalid,
	} {
		if _, err := d.KeysAt(t.Context(), did, auditBase); !errors.Is(err, want) || !errors.Is(err, identity.ErrInvalid) {
			t.Errorf("%s: %v, want %v", did, err, want)
		}
	}
	if asked.Load() != 0 {
		t.Errorf("%d requests", asked.Load())
	}
}

// FuzzParseAudit: any answer of a directory is keys or a classified error.
func FuzzParseAudit(f *testing.F) {
	k := newKeys(f, 2)
	f.Add([]byte(auditLog(f, op{typ: "create", key: k[0]}, op{hours: 1, typ: "plc_operation", key: k[1]})))
	f.Add([]byte(auditLog(f, op{typ: "plc_operation", key: k[1]}, op{hours: 1, typ: "plc_tombstone", nullified: true})))
	f.Add([]byte(`[{"did":"` + auditDID + `","operation":null,"createdAt":"2024-01-01T00:00:00Z"},null]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		keys, err := identity.ParseAudit(auditDID, body, auditBase)
		if err != nil {
			if len(keys) != 0 || !(errors.Is(err, identity.ErrInvalid) || errors.Is(err, identity.ErrNotFound)) {
				t.Errorf("%v with %v", keys, err)
			}
			return
		}
		seen := map[string]bool{}
		for _, key := range keys {
			if seen[key.DIDKey()] || len(keys) > identity.AuditKeysMax {
				t.Errorf("keys %v", texts(keys))
			}
			seen[key.DIDKey()] = true
		}
	})
}
