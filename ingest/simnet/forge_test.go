package simnet_test

import (
	"bytes"
	"testing"

	indigo "github.com/bluesky-social/indigo/atproto/repo"

	"cistern/ingest/repo"
	"cistern/ingest/simnet"
)

func TestSpansCoverTheCAR(t *testing.T) {
	t.Parallel()
	a := newNetwork(t, simnet.Options{Repos: 1}).Accounts()[0]
	car, blocks := a.CAR(), a.Blocks()
	spans := simnet.Spans(car)
	if len(spans) != len(blocks) || spans[len(spans)-1].End != len(car) {
		t.Fatalf("%d spans of %d blocks", len(spans), len(blocks))
	}
	for i, s := range spans {
		if !bytes.Equal(car[s.Data:s.End], blocks[i]) || (i > 0 && s.Start != spans[i-1].End) {
			t.Errorf("span %d: %+v", i, s)
		}
	}
}

func TestForgedRepositoryIsSigned(t *testing.T) {
	t.Parallel()
	a := newNetwork(t, simnet.Options{Repos: 1}).Accounts()[0]
	before := a.Truth()
	record := simnet.EncodeRecord(simnet.Post("forged"))
	cid := repo.HashCID(record)
	leaf := simnet.EncodeNode(repo.CID{}, simnet.Entry{Suffix: "a.b.c/1", Value: cid})
	node := simnet.EncodeNode(repo.HashCID(leaf), // keys out of order, at any layer
		simnet.Entry{Suffix: "a.b.c/9", Value: cid}, simnet.Entry{Prefix: 6, Suffix: "0", Value: cid})
	car := a.Forge(repo.HashCID(node), record, leaf, node)
	commit, forged, err := indigo.LoadRepoFromCAR(t.Context(), bytes.NewReader(car))
	if err != nil {
		t.Fatal(err)
	}
	if commit.Rev <= before.Rev || forged.MST.Verify() == nil {
		t.Errorf("forged rev %s, tree %v", commit.Rev, forged.MST.Verify())
	}
	if after := a.Truth(); after.Rev != before.Rev {
		t.Errorf("truth moved to %s", after.Rev)
	}
}
