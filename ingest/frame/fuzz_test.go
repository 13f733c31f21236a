package frame_test

import (
	"bytes"
	"errors"
	"testing"

	"cistern/ingest/frame"
	"cistern/ingest/repo"
)

// FuzzDecode compares the decoder with the model on any bytes.
func FuzzDecode(f *testing.F) {
	m, err := newModel()
	if err != nil {
		f.Fatal(err)
	}
	small := with(commitFields(), "blocks", []byte("CAR"))
	account := []pair{{"seq", 7}, {"did", did}, {"time", at}, {"active", true}, {"status", "x"}}
	for _, seed := range [][]byte{
		message(f, "#commit", small...),
		message(f, "#commit", with(with(small, "since", nil), "prevData", nil)...),
		message(f, "#sync", pair{"seq", 7}, pair{"did", did}, pair{"rev", rev}, pair{"blocks", []byte("CAR")}),
		message(f, "#account", account...),
		message(f, "#identity", pair{"seq", 7}, pair{"did", did}, pair{"handle", "a.example"}),
		message(f, "#info", pair{"name", "OutdatedCursor"}, pair{"message", "é"}),
		message(f, "#new", pair{"seq", 7}, pair{"did", []pair{{"a", []any{newCID, -7}}}}),
		append(encode(f, []pair{{"op", -1}}), encode(f, []pair{{"error", "FutureCursor"}})...),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, message []byte) { agree(t, m, message) })
}

// agree decodes a message both ways. The model is kept by its caller; fuzzing workers are processes.
func agree(t *testing.T, m *model, message []byte) {
	t.Helper()
	before := bytes.Clone(message)
	var got frame.Frame
	err := got.Decode(message)
	if !bytes.Equal(before, message) {
		t.Fatal("the message was changed")
	}
	if err != nil && !errors.Is(err, repo.ErrInvalid) {
		t.Fatalf("not ErrInvalid: %v", err)
	}
	local := *m
	switch want, v := local.decode(message); {
	case v == accepted && err != nil:
		t.Fatalf("refused: %v\nthe model has %+v", err, want)
	case v == refused && err == nil:
		t.Fatalf("accepted, the model refuses: %+v", got)
	case v == accepted:
		if d := diff(want, got); d != "" {
			t.Fatal(d)
		}
	}
}

// TestEveryByteChanged compares the decoder with the model on messages with one byte changed.
func TestEveryByteChanged(t *testing.T) {
	t.Parallel()
	m, err := newModel()
	if err != nil {
		t.Fatal(err)
	}
	good := message(t, "#commit", with(commitFields(), "blocks", []byte("CAR"))...)
	if _, v := m.decode(good); v != accepted {
		t.Fatal("the model refuses a valid message")
	}
	for i := range good {
		for _, b := range []byte{0x00, 0x18, 0x60, 0x80, 0xa1, 0xc0, 0xd8, 0xf6, 0xff, good[i] - 1, good[i] + 1} {
			bad := bytes.Clone(good)
			bad[i] = b
			agree(t, m, bad)
		}
	}
}
