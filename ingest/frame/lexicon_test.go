package frame_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/lex/util"
	"github.com/ipfs/go-cid"

	"cistern/ingest/frame"
	"cistern/ingest/repo"
)

// TestFramesAsRelaysEncodeThem: frames written by the encoder of the Go relay are decoded.
func TestFramesAsRelaysEncodeThem(t *testing.T) {
	t.Parallel()
	linkTo := func(id repo.CID) util.LexLink {
		c, err := cid.Cast(id.AppendBytes(nil))
		if err != nil {
			t.Fatal(err)
		}
		return util.LexLink(c)
	}
	newLink, oldLink, dataLink := linkTo(newCID), linkTo(oldCID), linkTo(dataCID)
	sinceText, handle, status, text := since, "a.example", "takendown", "too old"
	whole := commitFrame()
	genesis := whole
	genesis.Since, genesis.PrevData, genesis.Ops = "", repo.CID{}, nil
	commit := &atproto.SyncSubscribeRepos_Commit{
		Blobs: []util.LexLink{newLink}, Blocks: blocks, Commit: linkTo(commitCID), PrevData: &dataLink,
		Repo: did, Rev: rev, Seq: 70000, Since: &sinceText, Time: at,
		Ops: []*atproto.SyncSubscribeRepos_RepoOp{
			{Action: "create", Cid: &newLink, Path: "app.bsky.feed.post/a"},
			{Action: "update", Cid: &newLink, Path: "app.bsky.feed.post/b", Prev: &oldLink},
			{Action: "delete", Path: "app.bsky.feed.post/c", Prev: &oldLink},
		},
	}
	first := *commit
	first.Since, first.PrevData, first.Ops, first.Blobs = nil, nil, nil, nil
	for _, c := range []struct {
		typ  string
		body interface{ MarshalCBOR(io.Writer) error }
		want frame.Frame
	}{
		{"#commit", commit, whole},
		{"#commit", &first, genesis},
		{"#sync", &atproto.SyncSubscribeRepos_Sync{Blocks: blocks, Did: did, Rev: rev, Seq: 7, Time: at},
			frame.Frame{Kind: frame.KindSync, Seq: 7, DID: did, Time: atMicros, Rev: rev, Blocks: blocks}},
		{"#identity", &atproto.SyncSubscribeRepos_Identity{Did: did, Handle: &handle, Seq: 7, Time: at},
			frame.Frame{Kind: frame.KindIdentity, Seq: 7, DID: did, Time: atMicros, Handle: handle}},
		{"#identity", &atproto.SyncSubscribeRepos_Identity{Did: did, Seq: 7, Time: at},
			frame.Frame{Kind: frame.KindIdentity, Seq: 7, DID: did, Time: atMicros}},
		{"#account", &atproto.SyncSubscribeRepos_Account{Did: did, Seq: 7, Time: at, Status: &status},
			frame.Frame{Kind: frame.KindAccount, Seq: 7, DID: did, Time: atMicros, Status: status}},
		{"#account", &atproto.SyncSubscribeRepos_Account{Active: true, Did: did, Seq: 7, Time: at},
			frame.Frame{Kind: frame.KindAccount, Seq: 7, DID: did, Time: atMicros, Active: true}},
		{"#info", &atproto.SyncSubscribeRepos_Info{Name: "OutdatedCursor", Message: &text},
			frame.Frame{Kind: frame.KindInfo, Name: "OutdatedCursor", Message: text}},
	} {
		buf := bytes.NewBuffer(encode(t, []pair{{"t", c.typ}, {"op", 1}}))
		if err := c.body.MarshalCBOR(buf); err != nil {
			t.Fatal(err)
		}
		var got frame.Frame
		if err := got.Decode(buf.Bytes()); err != nil {
			t.Errorf("%s: %v", c.typ, err)
		} else if d := diff(c.want, got); d != "" {
			t.Errorf("%s: %s", c.typ, d)
		}
	}
}
