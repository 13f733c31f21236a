package frame_test

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"cistern/ingest/frame"
	"cistern/ingest/repo"
)

func commitFrame() frame.Frame {
	return frame.Frame{
		Kind: frame.KindCommit, Seq: 70000, DID: did, Time: atMicros, Rev: rev, Since: since,
		Commit: commitCID, PrevData: dataCID, Blocks: blocks,
		Ops: []frame.Op{
			{Action: "create", Path: []byte("app.bsky.feed.post/a"), CID: newCID},
			{Action: "update", Path: []byte("app.bsky.feed.post/b"), CID: newCID, Prev: oldCID},
			{Action: "delete", Path: []byte("app.bsky.feed.post/c"), Prev: oldCID},
		},
	}
}

func diff(want, got frame.Frame) string {
	if reflect.DeepEqual(want, got) { // a hundred times cheaper
		return ""
	}
	return cmp.Diff(want, got, cmpopts.EquateEmpty())
}

func TestDecode(t *testing.T) {
	t.Parallel()
	sync := []pair{{"seq", 7}, {"did", did}, {"rev", rev}, {"time", at}, {"blocks", blocks}}
	account := []pair{{"seq", 7}, {"did", did}, {"time", at}, {"active", false}, {"status", "takendown"}}
	identity := []pair{{"seq", 7}, {"did", did}, {"time", at}, {"handle", "a.example"}}
	event := frame.Frame{Seq: 7, DID: did, Time: atMicros}
	of := func(kind frame.Kind, change func(*frame.Frame)) frame.Frame {
		f := event
		f.Kind = kind
		change(&f)
		return f
	}
	commit := func(change func(*frame.Frame)) frame.Frame {
		f := commitFrame()
		change(&f)
		return f
	}
	none := func(*frame.Frame) {}
	for _, c := range []struct {
		why     string
		message []byte
		want    frame.Frame
	}{
		{"a commit", message(t, "#commit", commitFields()...), commitFrame()},
		{"since null, of a first commit", message(t, "#commit", with(commitFields(), "since", nil)...),
			commit(func(f *frame.Frame) { f.Since = "" })},
		{"since empty, as some hosts have it", message(t, "#commit", with(commitFields(), "since", "")...),
			commit(func(f *frame.Frame) { f.Since = "" })},
		{"prevData null", message(t, "#commit", with(commitFields(), "prevData", nil)...),
			commit(func(f *frame.Frame) { f.PrevData = repo.CID{} })},
		{"prevData missing, as of hosts before sync v1.1", message(t, "#commit", without(commitFields(), "prevData")...),
			commit(func(f *frame.Frame) { f.PrevData = repo.CID{} })},
		{"the deprecated flags missing", message(t, "#commit", without(without(commitFields(), "tooBig"), "rebase")...), commitFrame()},
		{"the deprecated flags set", message(t, "#commit", with(with(commitFields(), "tooBig", true), "rebase", true)...),
			commit(func(f *frame.Frame) { f.TooBig, f.Rebase = true, true })},
		{"the deprecated field prev", message(t, "#commit", with(commitFields(), "prev", oldCID)...), commitFrame()},
		{"no ops", message(t, "#commit", with(commitFields(), "ops", []any{})...), commit(func(f *frame.Frame) { f.Ops = nil })},
		{"ops null, as a nil slice may be encoded", message(t, "#commit", with(commitFields(), "ops", nil)...),
			commit(func(f *frame.Frame) { f.Ops = nil })},
		{"no blocks, for the verifier to refuse", message(t, "#commit", without(commitFields(), "blocks")...),
			commit(func(f *frame.Frame) { f.Blocks = nil })},
		{"a commit CID of another kind", message(t, "#commit", with(commitFields(), "commit", rawLink())...),
			commit(func(f *frame.Frame) { f.Commit = repo.CID{} })},
		{"a path that is no UTF-8, which a tree may hold", message(t, "#commit", with(commitFields(), "ops",
			[]any{[]pair{{"action", "odd"}, {"path", raw("\x62a\xff")}}})...),
			commit(func(f *frame.Frame) { f.Ops = []frame.Op{{Action: "odd", Path: []byte("a\xff")}} })},
		{"no time", message(t, "#commit", without(commitFields(), "time")...), commit(func(f *frame.Frame) { f.Time = 0 })},
		{"an invalid time", message(t, "#commit", with(commitFields(), "time", "yesterday")...), commit(func(f *frame.Frame) { f.Time = 0 })},
		{"a time that is no text", message(t, "#commit", with(commitFields(), "time", 3)...), commit(func(f *frame.Frame) { f.Time = 0 })},
		{"a time before 1970", message(t, "#commit", with(commitFields(), "time", "1969-12-31T23:59:59Z")...), commit(func(f *frame.Frame) { f.Time = 0 })},
		{"a time elsewhere", message(t, "#commit", with(commitFields(), "time", "2026-10-01T14:00:00.25+02:00")...), commitFrame()},
		{"a field unknown to us, of any type", message(t, "#commit", with(commitFields(), "novel",
			[]pair{{"a", 1.5}, {"b", raw("\xf9\x00\x00")}, {"c", raw("\xf7")}, {"d", raw("\xc1\x05")}, {"e", -7}, {"f", []byte("x")}})...), commitFrame()},
		{"a field of another kind is not ours", message(t, "#commit", with(commitFields(), "did", 7)...), commitFrame()},

		{"a sync", message(t, "#sync", sync...), of(frame.KindSync, func(f *frame.Frame) { f.Rev, f.Blocks = rev, blocks })},
		{"an identity", message(t, "#identity", identity...), of(frame.KindIdentity, func(f *frame.Frame) { f.Handle = "a.example" })},
		{"an identity without a handle", message(t, "#identity", without(identity, "handle")...), of(frame.KindIdentity, none)},
		{"an account", message(t, "#account", account...), of(frame.KindAccount, func(f *frame.Frame) { f.Status = "takendown" })},
		{"an active account", message(t, "#account", with(with(account, "status", nil), "active", true)...), of(frame.KindAccount, func(f *frame.Frame) { f.Active = true })},
		{"an info", message(t, "#info", pair{"name", "OutdatedCursor"}, pair{"message", "too old"}),
			frame.Frame{Kind: frame.KindInfo, Name: "OutdatedCursor", Message: "too old"}},
		{"an info without a message", message(t, "#info", pair{"name", "OutdatedCursor"}), frame.Frame{Kind: frame.KindInfo, Name: "OutdatedCursor"}},
		{"an error", append(encode(t, []pair{{"op", -1}}), encode(t, []pair{{"error", "FutureCursor"}, {"message", "a\xffb"}})...),
			frame.Frame{Kind: frame.KindError, Name: "FutureCursor", Message: "ab"}},
		{"an error with a long message", append(encode(t, []pair{{"op", -1}}), encode(t, []pair{{"error", "X"}, {"message", strings.Repeat("é", 400)}})...),
			frame.Frame{Kind: frame.KindError, Name: "X", Message: strings.Repeat("é", 256)}},

		{"an unknown type", message(t, "#migrate", pair{"seq", 9}, pair{"did", did}, pair{"x", 1}), frame.Frame{Seq: 9, DID: did}},
		{"an unknown type whose fields mean something else", message(t, "#new", pair{"seq", "9"}, pair{"did", 5}), frame.Frame{}},
		{"an unknown type whose body is no map", append(encode(t, []pair{{"t", "#new"}, {"op", 1}}), 0x01), frame.Frame{}},
		{"an unknown op", append(encode(t, []pair{{"t", "#commit"}, {"op", 2}}), encode(t, []pair{{"seq", 9}})...), frame.Frame{Seq: 9}},
		{"an op far away", append(encode(t, []pair{{"op", -1 << 40}}), encode(t, []pair{{"seq", 9}})...), frame.Frame{Seq: 9}},
		{"no type", append(encode(t, []pair{{"op", 1}}), encode(t, []pair{{"seq", 9}})...), frame.Frame{Seq: 9}},
		{"more in the header", append(encode(t, []pair{{"op", 1}, {"v", []any{1}}, {"t", "#info"}}), 0xa0), frame.Frame{Kind: frame.KindInfo}},
	} {
		got := frame.Frame{Rev: "stale", Ops: make([]frame.Op, 5), Blocks: []byte("stale")}
		if err := got.Decode(c.message); err != nil {
			t.Errorf("%s: %v", c.why, err)
		} else if d := diff(c.want, got); d != "" {
			t.Errorf("%s: %s", c.why, d)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	fields := commitFields()
	op := []pair{{"action", "create"}, {"path", "a/b"}, {"cid", newCID}}
	ops := func(op ...any) []byte { return message(t, "#commit", with(fields, "ops", op)...) }
	account := []pair{{"did", did}, {"seq", 7}}
	zero := repo.CID{}
	good := message(t, "#commit", fields...)
	for _, c := range []struct {
		why     string
		message []byte
		read    frame.Frame // what is readable of it
	}{
		{"nothing", nil, frame.Frame{}},
		{"text", []byte("hello"), frame.Frame{}},
		{"a header alone", encode(t, []pair{{"t", "#commit"}, {"op", 1}}), frame.Frame{Kind: frame.KindCommit}},
		{"no op", append(encode(t, []pair{{"t", "#info"}}), 0xa0), frame.Frame{}},
		{"op twice", append(encode(t, []pair{{"op", 1}, {"op", -1}}), 0xa0), frame.Frame{}},
		{"t twice", append(encode(t, []pair{{"op", 1}, {"t", "#info"}, {"t", "#sync"}}), 0xa0), frame.Frame{}},
		{"op is text", append(encode(t, []pair{{"op", "1"}}), 0xa0), frame.Frame{}},
		{"t is bytes", append(encode(t, []pair{{"op", 1}, {"t", []byte("#info")}}), 0xa0), frame.Frame{}},
		{"a body that is an array", append(encode(t, []pair{{"op", 1}, {"t", "#info"}}), 0x80), frame.Frame{Kind: frame.KindInfo}},
		{"something behind the body", append(slices.Clone(good), 0), commitKnown(70000, did)},
		{"an indefinite map", append(encode(t, []pair{{"op", 1}, {"t", "#info"}}), 0xbf, 0xff), frame.Frame{Kind: frame.KindInfo}},
		{"a length in a long form", message(t, "#commit", with(fields, "rev", raw("\x78\x01a"))...), known(frame.KindCommit, 70000)},
		{"the same in a field passed over", message(t, "#commit", with(fields, "x", raw("\x78\x01a"))...), commitKnown(70000, did)},
		{"an impossible simple value", message(t, "#commit", with(fields, "x", raw("\xf8\x05"))...), commitKnown(70000, did)},
		{"a key that is no text", append(encode(t, []pair{{"op", 1}, {"t", "#info"}}), 0xa1, 1, 1), frame.Frame{Kind: frame.KindInfo}},
		{"a field twice", message(t, "#commit", append(slices.Clone(fields), pair{"rev", rev})...), commitKnown(70000, did)},
		{"nested without end", message(t, "#commit", append([]pair{{"x", raw(strings.Repeat("\x81", 100) + "\x00")}}, fields...)...), frame.Frame{Kind: frame.KindCommit}},
		{"the same in tags", message(t, "#commit", append(slices.Clone(fields), pair{"x", raw(strings.Repeat("\xc6", 100) + "\x00")})...), commitKnown(70000, did)},
		{"a length beyond the message", message(t, "#commit", with(fields, "blocks", raw("\x5b\xff\xff\xff\xff\xff\xff\xff\xff"))...), commitKnown(70000, did)},
		{"an array beyond the message", message(t, "#commit", with(fields, "ops", raw("\x9b\xff\xff\xff\xff\xff\xff\xff\xff"))...), commitKnown(70000, did)},
		{"a map beyond the message", message(t, "#commit", with(fields, "x", raw("\xbb\xff\xff\xff\xff\xff\xff\xff\xff"))...), commitKnown(70000, did)},

		{"no seq", message(t, "#commit", without(fields, "seq")...), commitKnown(0, did)},
		{"seq 0", message(t, "#commit", with(fields, "seq", 0)...), commitKnown(0, did)},
		{"a negative seq", message(t, "#commit", with(fields, "seq", -5)...), commitKnown(0, did)},
		{"a seq over 53 bits", message(t, "#commit", with(fields, "seq", 1<<53)...), commitKnown(0, did)},
		{"no repo", message(t, "#commit", without(fields, "repo")...), commitKnown(70000, "")},
		{"a DID without end", message(t, "#commit", with(fields, "repo", strings.Repeat("d", 2049))...), commitKnown(70000, "")},
		{"a DID that is no UTF-8", message(t, "#commit", with(fields, "repo", raw("\x61\xff"))...), commitKnown(70000, "")},
		{"no rev", message(t, "#commit", without(fields, "rev")...), known(frame.KindCommit, 70000)},
		{"a rev that is a number, before the seq", message(t, "#commit", append([]pair{{"rev", 7}}, without(fields, "rev")...)...), known(frame.KindCommit, 70000)},
		{"since is a number", message(t, "#commit", with(fields, "since", 7)...), commitKnown(70000, did)},
		{"commit null", message(t, "#commit", with(fields, "commit", nil)...), commitKnown(70000, did)},
		{"a link without its zero", message(t, "#commit", with(fields, "commit", raw("\xd8\x2a\x42\x01\x01"))...), commitKnown(70000, did)},
		{"a link of nothing", message(t, "#commit", with(fields, "commit", raw("\xd8\x2a\x41\x00"))...), commitKnown(70000, did)},
		{"another tag", message(t, "#commit", with(fields, "commit", raw("\xd8\x2b\x42\x00\x01"))...), commitKnown(70000, did)},
		{"prevData of another kind", message(t, "#commit", with(fields, "prevData", rawLink())...), commitKnown(70000, did)},
		{"prevData of zeros, which would look absent", message(t, "#commit", with(fields, "prevData", zero)...), commitKnown(70000, did)},
		{"tooBig is a number", message(t, "#commit", with(fields, "tooBig", 1)...), commitKnown(70000, did)},
		{"blocks are text", message(t, "#commit", with(fields, "blocks", "CAR")...), commitKnown(70000, did)},
		{"ops are a map", message(t, "#commit", with(fields, "ops", op)...), commitKnown(70000, did)},
		{"an op that is an array", ops([]any{1}), commitKnown(70000, did)},
		{"an op without an action", ops(without(op, "action")), commitKnown(70000, did)},
		{"an op without a path", ops(without(op, "path")), commitKnown(70000, did)},
		{"an op with two paths", ops(append(slices.Clone(op), pair{"path", "c/d"})), commitKnown(70000, did)},
		{"an op with a CID of another kind", ops(with(op, "cid", rawLink())), commitKnown(70000, did)},
		{"an op with a CID of zeros, which would look like null", ops(with(op, "cid", zero)), commitKnown(70000, did)},
		{"an op with a prev that is text", ops(with(op, "prev", newCID.String())), commitKnown(70000, did)},
		{"more ops than the limit", ops(slices.Repeat([]any{op}, 1001)...), commitKnown(70000, did)},
		{"an account that does not say whether it is active", message(t, "#account", account...), known(frame.KindAccount, 7)},
		{"an account that says it with null", message(t, "#account", with(account, "active", nil)...), known(frame.KindAccount, 7)},
		{"an identity with a handle without end", message(t, "#identity", with(account, "handle", strings.Repeat("h", 257))...), known(frame.KindIdentity, 7)},
		{"longer than any message", message(t, "#commit", with(fields, "x", make([]byte, frame.BytesMax))...), commitKnown(70000, did)},
	} {
		got := frame.Frame{Rev: "stale", Ops: make([]frame.Op, 5), Blocks: []byte("stale")}
		err := got.Decode(c.message)
		if !errors.Is(err, repo.ErrInvalid) {
			t.Errorf("%s: %v", c.why, err)
		} else if d := diff(c.read, got); d != "" {
			t.Errorf("%s: %s", c.why, d)
		}
	}
	for n := range good {
		if err := new(frame.Frame).Decode(good[:n]); !errors.Is(err, repo.ErrInvalid) {
			t.Fatalf("cut off after %d bytes of %d: %v", n, len(good), err)
		}
	}
	var f frame.Frame
	if err := f.Decode(ops(slices.Repeat([]any{op}, 1000)...)); err != nil || len(f.Ops) != 1000 {
		t.Errorf("%d ops of 1000: %v", len(f.Ops), err)
	}
}

func known(kind frame.Kind, seq int64) frame.Frame {
	return frame.Frame{Kind: kind, Seq: seq, DID: did}
}

func commitKnown(seq int64, did string) frame.Frame {
	return frame.Frame{Kind: frame.KindCommit, Seq: seq, DID: did, Rev: rev}
}

// TestFieldsInAnyOrder: a commit is the same with its fields, and unknown ones, in every order.
func TestFieldsInAnyOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		fields := commitFields()
		for _, name := range rapid.SliceOfNDistinct(rapid.StringMatching(`x[a-z]{0,30}`), 0, 4, rapid.ID).Draw(t, "names") {
			fields = append(fields, pair{name, anything(t, 3)})
		}
		fields = rapid.Permutation(fields).Draw(t, "fields")
		var got frame.Frame
		if err := got.Decode(message(noTB{}, "#commit", fields...)); err != nil {
			t.Fatal(err)
		}
		if d := diff(commitFrame(), got); d != "" {
			t.Fatal(d)
		}
	})
}

// anything is a value of any type.
func anything(t *rapid.T, depth int) any {
	switch kind := rapid.IntRange(0, 8).Draw(t, "kind"); {
	case kind == 0:
		return nil
	case kind == 1:
		return rapid.Bool().Draw(t, "bool")
	case kind == 2:
		return rapid.Int64().Draw(t, "int")
	case kind == 3:
		return rapid.Float64().Draw(t, "float")
	case kind == 4:
		return rapid.String().Draw(t, "text")
	case kind == 5:
		return rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "bytes")
	case kind == 6 || depth == 0:
		return newCID
	case kind == 7:
		list := []any{}
		for range rapid.IntRange(0, 30).Draw(t, "length") {
			list = append(list, anything(t, depth-1))
		}
		return list
	}
	fields := []pair{}
	for range rapid.IntRange(0, 4).Draw(t, "size") {
		fields = append(fields, pair{rapid.String().Draw(t, "key"), anything(t, depth-1)})
	}
	return fields
}

// noTB lets encode be used where there is no test to report a failure to.
type noTB struct{ testing.TB }

func (noTB) Helper()           {}
func (noTB) Fatal(args ...any) { panic(args) }

func TestFrameRefersToItsMessage(t *testing.T) {
	t.Parallel()
	m := message(t, "#commit", commitFields()...)
	var f frame.Frame
	if err := f.Decode(m); err != nil {
		t.Fatal(err)
	}
	path, car := bytes.Index(m, []byte("app.bsky.feed.post/a")), bytes.Index(m, blocks)
	if &f.Ops[0].Path[0] != &m[path] || &f.Blocks[0] != &m[car] {
		t.Error("path or blocks were copied")
	}
	if cap(f.Ops[0].Path) != len(f.Ops[0].Path) || cap(f.Blocks) != len(f.Blocks) {
		t.Error("appending to a path or to blocks writes to the message")
	}
	text := f.DID + f.Rev + f.Since + f.Ops[0].Action
	clear(m)
	if f.DID+f.Rev+f.Since+f.Ops[0].Action != text {
		t.Error("a string refers to the message")
	}
}

func TestKindString(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for k := frame.KindUnknown; k <= frame.KindError; k++ {
		seen[k.String()] = true
	}
	if len(seen) != int(frame.KindError)+1 || !seen["unknown"] {
		t.Errorf("names of kinds: %v", seen)
	}
}
