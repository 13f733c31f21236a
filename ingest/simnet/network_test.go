package simnet_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/atdata"
	indigo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"

	"cistern/ingest/repo"
	"cistern/ingest/simnet"
)

func newNetwork(t testing.TB, opts simnet.Options) *simnet.Network {
	t.Helper()
	n, err := simnet.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func startNetwork(t testing.TB, opts simnet.Options) *simnet.Network {
	t.Helper()
	n := newNetwork(t, opts)
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// readCAR reads a CAR with indigo's code alone and checks all that it can check.
func readCAR(t testing.TB, car []byte, did, key string) (commit *indigo.Commit, records map[string]repo.CID) {
	t.Helper()
	ctx := context.Background()
	commit, r, err := indigo.LoadRepoFromCAR(ctx, bytes.NewReader(car))
	if err != nil {
		t.Fatalf("load %s: %v", did, err)
	}
	if commit.DID != did {
		t.Errorf("commit names %s, want %s", commit.DID, did)
	}
	public, err := atcrypto.ParsePublicDIDKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := commit.VerifySignature(public); err != nil {
		t.Errorf("signature of %s: %v", did, err)
	}
	if err := r.MST.Verify(); err != nil {
		t.Errorf("tree of %s: %v", did, err)
	}
	if r.MST.IsPartial() {
		t.Errorf("tree of %s is partial", did)
	}
	records = make(map[string]repo.CID)
	err = r.MST.Walk(func(path []byte, c cid.Cid) error {
		b, err := r.RecordStore.Get(ctx, c)
		if err != nil {
			return err
		}
		if _, err := atdata.UnmarshalCBOR(b.RawData()); err != nil {
			t.Errorf("record %s: %v", path, err)
		}
		records[string(path)], err = repo.ParseCIDBytes(c.Bytes())
		return err
	})
	if err != nil {
		t.Errorf("walk %s: %v", did, err)
	}
	return commit, records
}

func checkAccount(t testing.TB, a *simnet.Account) {
	t.Helper()
	truth := a.Truth()
	commit, records := readCAR(t, a.CAR(), truth.DID, truth.Key)
	if commit.Rev != truth.Rev || commit.Data.String() != truth.Data.String() {
		t.Errorf("commit %s %s, truth %s %s", commit.Rev, commit.Data, truth.Rev, truth.Data)
	}
	if diff := cmp.Diff(truth.Records, records); diff != "" {
		t.Errorf("records of %s (-truth +car):\n%s", truth.DID, diff)
	}
}

// TestPresent: content is old, and what is written after Build is of now.
func TestPresent(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, simnet.Options{Seed: 1, Repos: 3, Present: true})
	if err := n.Build(t.Context()); err != nil {
		t.Fatal(err)
	}
	began := time.Now().Truncate(time.Microsecond)
	for _, a := range n.Accounts() {
		old, err := syntax.ParseTID(a.Truth().Rev)
		if err != nil || !old.Time().Before(began) {
			t.Errorf("content of %s, %v", old, err)
		}
		for range 30 {
			c, err := a.Mutate(2)
			if err != nil {
				t.Fatal(err)
			}
			if rev, err := syntax.ParseTID(c.Rev); err != nil || rev.Time().Before(began) || rev.Time().After(time.Now().Add(time.Second)) {
				t.Errorf("a commit of %s, %v; want one of between %s and now", rev.Time(), err, began)
			}
		}
		checkAccount(t, a)
	}
}

func TestRepositoriesVerify(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, simnet.Options{Seed: 1, Repos: 12, Empty: 1, OddKeys: 1, Preorder: true})
	for _, a := range n.Accounts() {
		checkAccount(t, a)
		rev := a.Truth().Rev
		for range 5 {
			c, err := a.Mutate(7)
			if err != nil {
				t.Fatal(err)
			}
			if c.Rev <= rev || c.Since != rev || len(c.Ops) != 7 {
				t.Errorf("commit %+v after %s", c, rev)
			}
			rev = c.Rev
		}
		checkAccount(t, a)
	}
}

func TestSameSeedSameBytes(t *testing.T) {
	t.Parallel()
	opts := simnet.Options{Seed: 7, Repos: 8}
	one, two := newNetwork(t, opts), newNetwork(t, opts)
	if err := two.Build(t.Context()); err != nil { // on all cores: the order must not matter
		t.Fatal(err)
	}
	if diff := cmp.Diff(one.DIDs(), two.DIDs()); diff != "" {
		t.Fatal(diff)
	}
	for i, a := range one.Accounts() {
		b := two.Accounts()[i]
		for range 2 {
			if !bytes.Equal(a.CAR(), b.CAR()) {
				t.Errorf("CARs of account %d differ", i)
			}
			a.RotateKey()
			b.RotateKey()
			_, _ = a.Mutate(3)
			_, _ = b.Mutate(3)
		}
	}
	opts.Seed = 8
	if newNetwork(t, opts).DIDs()[0] == one.DIDs()[0] {
		t.Error("another seed gave the same DID")
	}
}

func TestRevsLieBeforeTheEpoch(t *testing.T) {
	t.Parallel()
	epoch := time.Date(2025, 3, 1, 0, 0, 0, 0, time.UTC)
	n := newNetwork(t, simnet.Options{Repos: 3, RecordsMedian: 300, Epoch: epoch})
	for _, a := range n.Accounts() {
		if at := syntax.TID(a.Truth().Rev).Time(); at.After(epoch) || at.Before(epoch.AddDate(-1, 0, 0)) {
			t.Errorf("rev at %s, epoch %s", at, epoch)
		}
	}
}

func BenchmarkBuild(b *testing.B) {
	for b.Loop() {
		n := newNetwork(b, simnet.Options{Seed: 3, Repos: 300, RecordsMedian: 100})
		records := 0
		for _, a := range n.Accounts() {
			records += len(a.Paths())
		}
		b.ReportMetric(float64(records), "records")
	}
}
