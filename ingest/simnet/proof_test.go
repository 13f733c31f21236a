package simnet_test

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"testing"

	"cistern/ingest/repo"
	"cistern/ingest/simnet"
)

func partURL(a *simnet.Account, method string, query ...string) string {
	return a.Host().URL() + "/xrpc/com.atproto.sync." + method + "?did=" + a.DID() + "&" + strings.Join(query, "&")
}

// readPart reads an answer that is a CAR.
func readPart(t testing.TB, url string, rootless bool) *repo.CAR {
	t.Helper()
	r := get(t, url)
	if r.err != nil || r.status != http.StatusOK {
		t.Fatalf("%s: status %d %.200s, %v", url, r.status, r.body, r.err)
	}
	c, err := repo.ReadCAR(bytes.NewReader(r.body), repo.CAROptions{Rootless: rootless})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestHostsProve: the answer of sync.getRecord has exactly what finds a path, or shows that nothing is there, and
// getBlocks sends what it is asked for, without a root.
func TestHostsProve(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 5, Repos: 3, RecordsMedian: 300})
	for _, a := range n.Accounts() {
		truth, paths := a.Truth(), a.Paths()
		for _, path := range []string{paths[0], paths[len(paths)/2], paths[len(paths)-1], "app.bsky.feed.post/3none", "aa.bb.cc/self", "zz.yy.xx/self"} {
			collection, rkey, _ := strings.Cut(path, "/")
			r := get(t, partURL(a, "getRecord", "collection="+collection, "rkey="+rkey))
			var s repo.Slice
			if err := s.Read(r.body); err != nil {
				t.Fatalf("%d %.200s: %v", r.status, r.body, err)
			}
			if s.Root() != truth.Commit {
				t.Fatalf("root %s, commit %s", s.Root(), truth.Commit)
			}
			found, err := s.Find(truth.Data, []byte(path))
			if err != nil || found != truth.Records[path] {
				t.Errorf("%s: %v, %v; want %v", path, found, err, truth.Records[path])
			}
			if _, ok := s.Block(found); found.Defined() && !ok {
				t.Errorf("%s: without the record", path)
			}
		}
		first, second := truth.Records[paths[0]], truth.Data
		c := readPart(t, partURL(a, "getBlocks", "cids="+first.String(), "cids="+second.String()), true)
		if c.Root().Defined() || c.Blocks() != 2 {
			t.Errorf("root %s, %d blocks", c.Root(), c.Blocks())
		}
		absent := repo.HashCID([]byte("absent"))
		e := getJSON[apiError](t, partURL(a, "getBlocks", "cids="+first.String(), "cids="+absent.String()), http.StatusBadRequest)
		if !strings.Contains(e.Message, absent.String()) {
			t.Errorf("error %+v", e)
		}
		a.SetStatus(simnet.Takendown)
		if e := getJSON[apiError](t, partURL(a, "getBlocks", "cids="+first.String()), http.StatusBadRequest); e.Error != "RepoTakendown" {
			t.Errorf("error %+v", e)
		}
	}
}

func TestFaultsInParts(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 6, Hosts: 1, Repos: 2, RecordsMedian: 200})
	a, h := n.Accounts()[0], n.Hosts()[0]
	truth := a.Truth()
	path := a.Paths()[3]
	collection, rkey, _ := strings.Cut(path, "/")
	proof := partURL(a, "getRecord", "collection="+collection, "rkey="+rkey)
	blocks := partURL(a, "getBlocks", "cids="+truth.Records[path].String(), "cids="+truth.Data.String())
	at := func(kind simnet.FaultKind, method string) *simnet.Injection {
		return h.Inject(simnet.Fault{Kind: kind, Endpoint: "com.atproto.sync." + method, Count: 1})
	}
	for _, kind := range []simnet.FaultKind{simnet.WrongDID, simnet.BadSignature, simnet.StaleRev} {
		in := at(kind, "getRecord")
		if c := readPart(t, proof, false); c.Root() == truth.Commit || in.Fired() != 1 {
			t.Errorf("%s: the commit is right, fired %d", kind, in.Fired())
		}
	}
	at(simnet.WrongHash, "getBlocks")
	if _, err := repo.ReadCAR(bytes.NewReader(get(t, blocks).body), repo.CAROptions{Rootless: true}); !errors.Is(err, repo.ErrInvalid) {
		t.Errorf("WrongHash: %v", err)
	}
	at(simnet.MissingNode, "getBlocks")
	if c := readPart(t, blocks, true); c.Blocks() != 1 {
		t.Errorf("MissingNode: %d blocks", c.Blocks())
	}
	if c := readPart(t, blocks, true); c.Blocks() != 2 {
		t.Errorf("without a fault: %d blocks", c.Blocks())
	}
}
