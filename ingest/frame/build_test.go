package frame_test

import (
	"testing"

	"github.com/fxamacker/cbor/v2"

	"cistern/ingest/repo"
)

// pair is a field of a map whose order and repetitions a test chooses; a raw value is encoded as it
// is.
type pair struct {
	key   string
	value any
}

type raw []byte

func encode(t testing.TB, v any) []byte {
	t.Helper()
	switch v := v.(type) {
	case raw:
		return v
	case []pair:
		out := head(5, len(v))
		for _, p := range v {
			out = append(append(out, encode(t, p.key)...), encode(t, p.value)...)
		}
		return out
	case []any:
		out := head(4, len(v))
		for _, item := range v {
			out = append(out, encode(t, item)...)
		}
		return out
	case repo.CID:
		return encode(t, link(v.AppendBytes(nil)))
	}
	b, err := cbor.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// head returns the head of an item in its shortest form.
func head(major byte, n int) []byte {
	switch {
	case n < 24:
		return []byte{major<<5 | byte(n)}
	case n < 1<<8:
		return []byte{major<<5 | 24, byte(n)}
	case n < 1<<16:
		return []byte{major<<5 | 25, byte(n >> 8), byte(n)}
	}
	return []byte{major<<5 | 26, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
}

// link returns a link to a CID of any kind.
func link(cid []byte) cbor.Tag {
	return cbor.Tag{Number: 42, Content: append([]byte{0}, cid...)}
}

// rawLink returns the CID of a raw block.
func rawLink() cbor.Tag {
	id := repo.HashCID([]byte("raw")).AppendBytes(nil)
	id[1] = 0x55
	return link(id)
}

// message returns a frame of type t.
func message(t testing.TB, typ string, body ...pair) []byte {
	t.Helper()
	return append(encode(t, []pair{{"t", typ}, {"op", 1}}), encode(t, body)...)
}

// with returns fields with one replaced or added.
func with(fields []pair, key string, value any) []pair {
	return append(without(fields, key), pair{key, value})
}

func without(fields []pair, key string) (rest []pair) {
	for _, f := range fields {
		if f.key != key {
			rest = append(rest, f)
		}
	}
	return rest
}

const (
	did   = "did:plc:cccccccccccccccccccccccc"
	rev   = "3lnqb2bwnyk24"
	since = "3lnqaz5ln2s2v"
	at    = "2026-10-01T12:00:00.25Z"
	// atMicros is the same time in microseconds.
	atMicros = 1790856000250000
)

var (
	commitCID = repo.HashCID([]byte("commit"))
	dataCID   = repo.HashCID([]byte("data"))
	newCID    = repo.HashCID([]byte("new"))
	oldCID    = repo.HashCID([]byte("old"))
	blocks    = make([]byte, 3000)
)

func commitFields() []pair {
	return []pair{
		{"ops", []any{
			[]pair{{"cid", newCID}, {"path", "app.bsky.feed.post/a"}, {"action", "create"}},
			[]pair{{"cid", newCID}, {"path", "app.bsky.feed.post/b"}, {"prev", oldCID}, {"action", "update"}},
			[]pair{{"cid", nil}, {"path", "app.bsky.feed.post/c"}, {"prev", oldCID}, {"action", "delete"}},
		}},
		{"rev", rev}, {"seq", 70000}, {"repo", did}, {"time", at}, {"blobs", []any{rawLink()}},
		{"since", since}, {"blocks", blocks}, {"commit", commitCID}, {"rebase", false},
		{"tooBig", false}, {"prevData", dataCID},
	}
}
