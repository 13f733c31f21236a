package api_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"cistern/api"
	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
)

// splitFrames gives the payloads of text frames, by the letter of RFC 6455.
func splitFrames(t testing.TB, b []byte) []string {
	t.Helper()
	var out []string
	for len(b) > 0 {
		if b[0] != 0x81 || b[1]&0x80 != 0 {
			t.Fatalf("frame begins with %x", b[:2])
		}
		n, at := int(b[1]), 2
		switch n {
		case 126:
			n, at = int(binary.BigEndian.Uint16(b[2:])), 4
			if n < 126 {
				t.Fatalf("length %d is not in its shortest form", n)
			}
		case 127:
			n, at = int(binary.BigEndian.Uint64(b[2:])), 10
			if n < 65536 {
				t.Fatalf("length %d is not in its shortest form", n)
			}
		}
		out = append(out, string(b[at:at+n]))
		b = b[at+n:]
	}
	return out
}

func TestEventFrames(t *testing.T) {
	t.Parallel()
	record := storetest.Text("hi")
	cid := repo.HashCID(record)
	rec := store.Event{
		ID: 7, Kind: store.KindRecord, DID: "did:plc:x", Live: true, Rev: "3k", Action: store.Create,
		Collection: []byte("a.b.c"), Rkey: []byte("r"), CID: cid, Record: record,
	}
	update, remove, broken := rec, rec, rec
	update.Action, update.Live = store.Update, false
	remove.Action, remove.CID, remove.Record = store.Delete, repo.CID{}, nil
	broken.Record = []byte{0xa1, 0x61, 'x', 0xfb, 0, 0, 0, 0, 0, 0, 0, 0} // {"x": 0.0}
	for name, c := range map[string]struct {
		ev      store.Event
		want    string
		refused int
	}{
		"create": {ev: rec, want: `{"id":7,"type":"record","record":{"live":true,"did":"did:plc:x","rev":"3k","collection":"a.b.c","rkey":"r","action":"create","record":{"text":"hi"},"cid":"` + cid.String() + `"}}`},
		"update": {ev: update, want: `{"id":7,"type":"record","record":{"live":false,"did":"did:plc:x","rev":"3k","collection":"a.b.c","rkey":"r","action":"update","record":{"text":"hi"},"cid":"` + cid.String() + `"}}`},
		// no record and no cid
		"delete": {ev: remove, want: `{"id":7,"type":"record","record":{"live":true,"did":"did:plc:x","rev":"3k","collection":"a.b.c","rkey":"r","action":"delete"}}`},
		// a float, which the data model forbids
		"no JSON form": {ev: broken, refused: 1, want: `{"id":7,"type":"record","record":{"live":true,"did":"did:plc:x","rev":"3k","collection":"a.b.c","rkey":"r","action":"create",` +
			`"unrepresentable":"byte 3: float, or a simple value other than false, true and null","cid":"` + cid.String() + `"}}`},
		"identity": {
			ev:   store.Event{ID: 8, Kind: store.KindIdentity, DID: "did:plc:x", Handle: "a.test", PDS: "https://p.test"},
			want: `{"id":8,"type":"identity","identity":{"did":"did:plc:x","handle":"a.test","pds":"https://p.test"}}`,
		},
		// handles come from documents of any content
		"hostile handle": {
			ev:   store.Event{ID: 8, Kind: store.KindIdentity, DID: "did:plc:x", Handle: "\"\\\n\x01é\xff"},
			want: `{"id":8,"type":"identity","identity":{"did":"did:plc:x","handle":"\"\\\n\u0001é` + "\ufffd" + `"}}`,
		},
		"active": {
			ev:   store.Event{ID: 9, Kind: store.KindAccount, DID: "did:plc:x"},
			want: `{"id":9,"type":"account","account":{"did":"did:plc:x","active":true}}`,
		},
		"deleted": {
			ev:   store.Event{ID: 9, Kind: store.KindAccount, DID: "did:plc:x", Status: store.StatusDeleted},
			want: `{"id":9,"type":"account","account":{"did":"did:plc:x","active":false,"status":"deleted"}}`,
		},
	} {
		frame, refused := api.AppendEvent(&c.ev)
		got := splitFrames(t, frame)
		if diff := cmp.Diff([]string{c.want}, got); diff != "" || refused != c.refused {
			t.Errorf("%s: %d refused\n%s", name, refused, diff)
		}
		if !json.Valid([]byte(got[0])) {
			t.Errorf("%s: not JSON: %s", name, got[0])
		}
	}
}

// The three lengths of frame headers, and the ends of frames.
func TestFrameLengths(t *testing.T) {
	t.Parallel()
	empty := store.Event{ID: 1, Kind: store.KindIdentity, DID: "d"}
	frame, _ := api.AppendEvent(&empty)
	base := len(splitFrames(t, frame)[0]) + len(`,"handle":""`)
	for _, size := range []int{125, 126, 127, 65535, 65536, 200_000} {
		ev := empty
		ev.Handle = strings.Repeat("h", size-base)
		frame, _ := api.AppendEvent(&ev)
		payloads := splitFrames(t, frame)
		if len(payloads) != 1 || len(payloads[0]) != size || !json.Valid([]byte(payloads[0])) {
			t.Fatalf("payload of %d bytes came out as %d frames of %d", size, len(payloads), len(payloads[0]))
		}
		two := append(append([]byte{}, frame...), frame...)
		for _, at := range []int{0, 1, 2, len(frame) - 1, len(frame), len(frame) + 1, len(two)} {
			want := (at + len(frame) - 1) / len(frame) * len(frame)
			if got := api.FrameEnd(two, at); got != want {
				t.Errorf("frames of %d: the one around byte %d ends at %d, want %d", len(frame), at, got, want)
			}
		}
	}
}

func TestBadDID(t *testing.T) {
	t.Parallel()
	for _, did := range []string{"did:plc:ewvi7nxzyoun6zhxrhs64oiz", "did:web:example.com", "did:web:localhost%3A2583"} {
		if reason := api.BadDID(did); reason != "" {
			t.Errorf("%s: %s", did, reason)
		}
	}
	for _, did := range []string{
		"", "x", "did:", "did:plc:", "did:plc:EWVI7NXZYOUN6ZHXRHS64OIZ", "did:plc:ewvi7nxzyoun6zhxrhs64oi1", "did:plc:short",
		"did:key:zabc", "did:web:example.com:path", "did:web:", "did:plc:ewvi7nxzyoun6zhxrhs64oiz\n",
		"did:web:" + strings.Repeat("a", 3000), "alice.test",
	} {
		if api.BadDID(did) == "" {
			t.Errorf("%q passes", fmt.Sprintf("%.50s", did))
		}
	}
}
