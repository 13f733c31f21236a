package deliver_test

import (
	"encoding/json"
	"strings"
	"testing"

	"cistern/api/deliver"
	"cistern/api/deliver/delivertest"
	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
)

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
		"synced": {
			ev:   store.Event{ID: 9, Kind: store.KindRepo, DID: "did:plc:x", Rev: "3k", Condition: store.ConditionSynced},
			want: `{"id":9,"type":"repo","repo":{"did":"did:plc:x","state":"synced","rev":"3k"}}`,
		},
		"failing": {
			ev: store.Event{ID: 9, Kind: store.KindRepo, DID: "did:plc:x", Condition: store.ConditionFailing,
				Reason: store.RateLimited, Since: 1_767_366_245, NextLook: 1_767_366_305},
			want: `{"id":9,"type":"repo","repo":{"did":"did:plc:x","state":"failing","reason":"ratelimited",` +
				`"since":"2026-01-02T15:04:05Z","next_look":"2026-01-02T15:05:05Z"}}`,
		},
		"gone": {
			ev: store.Event{ID: 9, Kind: store.KindRepo, DID: "did:plc:x", Condition: store.ConditionGone,
				Status: store.StatusNotFound, Since: 1_767_366_245},
			want: `{"id":9,"type":"repo","repo":{"did":"did:plc:x","state":"gone","reason":"notfound","since":"2026-01-02T15:04:05Z"}}`,
		},
		"untracked": {
			ev:   store.Event{ID: 9, Kind: store.KindRepo, DID: "did:plc:x", Condition: store.ConditionUntracked},
			want: `{"id":9,"type":"repo","repo":{"did":"did:plc:x","state":"untracked"}}`,
		},
		"deleted": {
			ev:   store.Event{ID: 9, Kind: store.KindAccount, DID: "did:plc:x", Status: store.StatusDeleted},
			want: `{"id":9,"type":"account","account":{"did":"did:plc:x","active":false,"status":"deleted"}}`,
		},
	} {
		frame, refused := deliver.AppendEvent(&c.ev)
		got := delivertest.SplitFrames(t, frame)
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
	frame, _ := deliver.AppendEvent(&empty)
	base := len(delivertest.SplitFrames(t, frame)[0]) + len(`,"handle":""`)
	for _, size := range []int{125, 126, 127, 65535, 65536, 200_000} {
		ev := empty
		ev.Handle = strings.Repeat("h", size-base)
		frame, _ := deliver.AppendEvent(&ev)
		payloads := delivertest.SplitFrames(t, frame)
		if len(payloads) != 1 || len(payloads[0]) != size || !json.Valid([]byte(payloads[0])) {
			t.Fatalf("payload of %d bytes came out as %d frames of %d", size, len(payloads), len(payloads[0]))
		}
		two := append(append([]byte{}, frame...), frame...)
		for _, at := range []int{0, 1, 2, len(frame) - 1, len(frame), len(frame) + 1, len(two)} {
			want := (at + len(frame) - 1) / len(frame) * len(frame)
			if got := deliver.FrameEnd(two, at); got != want {
				t.Errorf("frames of %d: the one around byte %d ends at %d, want %d", len(frame), at, got, want)
			}
		}
	}
}
