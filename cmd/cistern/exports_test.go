package main

import (
	"bytes"
	"encoding/binary"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"cistern/api"
	"cistern/backfill"
	"cistern/backfill/backfilltest"
	"cistern/ingest/repo"
	"cistern/ingest/simnet"
	"cistern/store"
)

// exported answers a query by a server on a store.
func exported(t *testing.T, s *api.Server, query string) (car []byte, status int) {
	t.Helper()
	w := httptest.NewRecorder()
	s.Public().ServeHTTP(deadlines{w}, httptest.NewRequest("GET", "/xrpc/com.atproto.sync."+query, nil))
	return w.Body.Bytes(), w.Code
}

// deadlines is a ResponseWriter that takes deadlines.
type deadlines struct{ http.ResponseWriter }

func (deadlines) SetWriteDeadline(time.Time) error { return nil }

// checkExports checks that a store which equals the network exports it: of each account that is
// active the commit and the records of its host, and no other account.
func checkExports(t *testing.T, s *store.Store, n *simnet.Network) {
	t.Helper()
	server, err := api.New(api.Options{Store: s})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range n.Accounts() {
		truth := a.Truth()
		car, status := exported(t, server, "getRepo?did="+truth.DID)
		if truth.Status != simnet.Active {
			if status != http.StatusBadRequest {
				t.Errorf("%s is %s, and its export has status %d", truth.DID, truth.Status, status)
			}
			continue
		}
		if status != http.StatusOK {
			t.Errorf("%s: status %d: %s", truth.DID, status, car)
			continue
		}
		c, err := repo.ReadCAR(bytes.NewReader(car), repo.CAROptions{})
		if err != nil {
			t.Fatal(err)
		}
		records := map[string]repo.CID{}
		err = c.Walk(truth.Data, func(l repo.Leaf) error { records[string(l.Key)] = l.CID; return nil })
		if err != nil || c.Root() != truth.Commit || !maps.Equal(records, truth.Records) {
			t.Errorf("%s exports commit %s and %d records, want %s and %d: %v", truth.DID, c.Root(),
				len(records), truth.Commit, len(truth.Records), err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// sections returns the header and the distinct blocks of a CAR, with their CIDs, in order.
func sections(car []byte) (all []string) {
	for len(car) > 0 {
		n, k := binary.Uvarint(car)
		s := string(car[k : k+int(n)])
		if !slices.Contains(all, s) {
			all = append(all, s)
		}
		car = car[k+int(n):]
	}
	return all
}

// TestExportsEqualHosts compares exports with what the hosts serve, which send CARs in pre-order here.
func TestExportsEqualHosts(t *testing.T) {
	t.Parallel()
	w := backfilltest.New(t, backfilltest.Options{Net: simnet.Options{Repos: 10, Empty: 1, OddKeys: 2, Preorder: true}})
	w.Make(backfill.Options{})
	w.Go()
	dids := w.Net.DIDs()
	w.Add(dids...)
	w.Settle(dids...)
	checkExports(t, w.Store, w.Net)
	server, err := api.New(api.Options{Store: w.Store})
	if err != nil {
		t.Fatal(err)
	}
	compare := func(did, query string) {
		t.Helper()
		res, err := http.Get(w.Net.Account(did).Host().URL() + "/xrpc/com.atproto.sync." + query)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		theirs, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %s %v", query, res.StatusCode, theirs, err)
		}
		ours, status := exported(t, server, query)
		if status != http.StatusOK || !slices.Equal(sections(ours), sections(theirs)) {
			t.Errorf("%s: status %d, %d sections, the host sends %d", query, status, len(sections(ours)), len(sections(theirs)))
		}
	}
	for _, did := range dids {
		compare(did, "getRepo?did="+did)
		truth := w.Net.Account(did).Truth()
		for path, id := range truth.Records {
			if collection, rkey, _ := strings.Cut(path, "/"); repo.ValidPath([]byte(path)) {
				compare(did, "getRecord?did="+did+"&collection="+collection+"&rkey="+rkey)
				compare(did, "getBlocks?did="+did+"&cids="+truth.Data.String()+"&cids="+id.String())
				break
			}
		}
	}
}
