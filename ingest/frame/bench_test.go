package frame_test

import (
	"bytes"
	"testing"

	"github.com/bluesky-social/indigo/api/atproto"

	"cistern/ingest/frame"
)

// oneOp returns a commit with one operation, the usual case.
func oneOp(t testing.TB) []byte {
	return message(t, "#commit", with(commitFields(), "ops", []any{
		[]pair{{"cid", newCID}, {"path", "app.bsky.feed.like/3lgwm24dcfkwo"}, {"action", "create"}}})...)
}

func TestDecodeAllocatesItsStringsOnly(t *testing.T) {
	one, three := oneOp(t), message(t, "#commit", commitFields()...)
	var f frame.Frame
	if err := f.Decode(three); err != nil { // allocates the ops
		t.Fatal(err)
	}
	for _, m := range [][]byte{one, three} {
		if n := testing.AllocsPerRun(100, func() { _ = f.Decode(m) }); n > 3 {
			t.Errorf("%v allocations, want the DID, the rev and since", n)
		}
	}
}

// TestAClaimIsNotBelieved: no memory is allocated for more operations than the message has room
// for.
func TestAClaimIsNotBelieved(t *testing.T) {
	t.Parallel()
	m := message(t, "#commit", pair{"ops", raw("\x99\x03\xe8" + string(make([]byte, 1000)))})
	var f frame.Frame
	if err := f.Decode(m); err == nil || cap(f.Ops) > 100 {
		t.Errorf("room for %d ops in %d bytes: %v", cap(f.Ops), len(m), err)
	}
}

func BenchmarkDecode(b *testing.B) {
	m := oneOp(b)
	b.SetBytes(int64(len(m)))
	b.ReportAllocs()
	var f frame.Frame
	for b.Loop() {
		if err := f.Decode(m); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkGenerated decodes the same frame, without its header, by the generated code of the Go
// relay.
func BenchmarkGenerated(b *testing.B) {
	m := oneOp(b)
	body := m[len(encode(b, []pair{{"t", "#commit"}, {"op", 1}})):]
	b.SetBytes(int64(len(m)))
	b.ReportAllocs()
	for b.Loop() {
		var ev atproto.SyncSubscribeRepos_Commit
		if err := ev.UnmarshalCBOR(bytes.NewReader(body)); err != nil {
			b.Fatal(err)
		}
	}
}
