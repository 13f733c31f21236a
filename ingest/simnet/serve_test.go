package simnet_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/google/go-cmp/cmp"

	"cistern/ingest/simnet"
)

// client is a bare client: it neither follows redirects nor decodes bodies.
func client() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{DisableCompression: true, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

type reply struct {
	status int
	header http.Header
	body   []byte
	err    error // of the request or of reading the body
}

func get(t testing.TB, url string) reply {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	return getContext(t, ctx, url, nil)
}

func getContext(t testing.TB, ctx context.Context, url string, header http.Header) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := client().Do(req)
	if err != nil {
		return reply{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	return reply{resp.StatusCode, resp.Header, body, err}
}

// getJSON decodes an answer of the wanted status.
func getJSON[T any](t testing.TB, url string, status int) (v T) {
	t.Helper()
	r := get(t, url)
	if r.err != nil || r.status != status {
		t.Fatalf("%s: status %d %.200s, %v; want %d", url, r.status, r.body, r.err, status)
	}
	if err := json.Unmarshal(r.body, &v); err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	return v
}

func repoURL(a *simnet.Account) string {
	return a.Host().URL() + "/xrpc/com.atproto.sync.getRepo?did=" + a.DID()
}

type apiError struct{ Error, Message string }

func TestHostsServeTheTruth(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 2, Repos: 6, Hosts: 2, RecordsMedian: 20})
	for _, a := range n.Accounts() {
		truth := a.Truth()
		r := get(t, repoURL(a))
		if r.err != nil || string(r.body) != string(a.CAR()) {
			t.Errorf("getRepo: %d, %v", r.status, r.err)
		}
		latest := getJSON[map[string]string](t, a.Host().URL()+"/xrpc/com.atproto.sync.getLatestCommit?did="+a.DID(), 200)
		if latest["rev"] != truth.Rev || latest["cid"] != truth.Commit.String() {
			t.Errorf("getLatestCommit: %v", latest)
		}
		for _, base := range []string{a.Host().URL(), n.Relay()} {
			status := getJSON[map[string]any](t, base+"/xrpc/com.atproto.sync.getRepoStatus?did="+a.DID(), 200)
			if status["active"] != true || status["rev"] != truth.Rev {
				t.Errorf("getRepoStatus: %v", status)
			}
		}
		if got := listAll(t, a); !cmp.Equal(got, truthText(truth)) {
			t.Errorf("listRecords: %s", cmp.Diff(truthText(truth), got))
		}
		redirect := get(t, n.Relay()+"/xrpc/com.atproto.sync.getRepo?did="+a.DID())
		if redirect.status != http.StatusFound || redirect.header.Get("Location") != repoURL(a) {
			t.Errorf("relay getRepo: %d %v", redirect.status, redirect.header)
		}
	}
}

// listAll reads all records of an account by describeRepo, listRecords and getRecord.
func listAll(t testing.TB, a *simnet.Account) map[string]string {
	t.Helper()
	base := a.Host().URL() + "/xrpc/com.atproto.repo."
	described := getJSON[struct{ Collections []string }](t, base+"describeRepo?repo="+a.DID(), 200)
	found := make(map[string]string)
	for _, collection := range described.Collections {
		url := base + "listRecords?limit=7&repo=" + a.DID() + "&collection=" + collection
		for cursor := ""; ; {
			page := getJSON[struct {
				Cursor  string
				Records []struct {
					URI, CID string
					Value    map[string]any
				}
			}](t, url+"&cursor="+cursor, 200)
			for _, r := range page.Records {
				found[strings.TrimPrefix(r.URI, "at://"+a.DID()+"/")] = r.CID
				if r.Value["$type"] != collection {
					t.Errorf("%s: $type %v", r.URI, r.Value["$type"])
				}
			}
			if cursor = page.Cursor; cursor == "" {
				break
			}
		}
	}
	one := a.Paths()[0]
	collection, rkey, _ := strings.Cut(one, "/")
	record := getJSON[map[string]any](t, base+"getRecord?repo="+a.DID()+"&collection="+collection+"&rkey="+rkey, 200)
	if record["cid"] != found[one] {
		t.Errorf("getRecord: %v", record)
	}
	return found
}

func truthText(truth simnet.Truth) map[string]string {
	text := make(map[string]string)
	for path, c := range truth.Records {
		text[path] = c.String()
	}
	return text
}

func TestListReposPages(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Repos: 11, Hosts: 2, RecordsMedian: 3})
	n.Accounts()[4].SetStatus(simnet.Takendown)
	n.Accounts()[6].SetStatus(simnet.Deleted)
	list := func(base string) (dids []string) {
		for cursor := ""; ; {
			page := getJSON[struct {
				Cursor string
				Repos  []struct {
					DID, Head, Rev, Status string
					Active                 bool
				}
			}](t, base+"/xrpc/com.atproto.sync.listRepos?limit=3&cursor="+cursor, 200)
			for _, r := range page.Repos {
				truth := n.Account(r.DID).Truth()
				if r.Rev != truth.Rev || r.Head != truth.Commit.String() || r.Active != (truth.Status == simnet.Active) {
					t.Errorf("row %+v", r)
				}
				dids = append(dids, r.DID)
			}
			if cursor = page.Cursor; cursor == "" {
				return dids
			}
		}
	}
	if diff := cmp.Diff(n.DIDs(), list(n.Relay())); diff != "" {
		t.Errorf("relay: %s", diff)
	}
	onHosts := append(list(n.Host(0).URL()), list(n.Host(1).URL())...)
	slices.Sort(onHosts)
	want := slices.Delete(n.DIDs(), 6, 7) // a host forgets a deleted account
	slices.Sort(want)
	if diff := cmp.Diff(want, onHosts); diff != "" {
		t.Errorf("hosts: %s", diff)
	}
	getJSON[apiError](t, n.Relay()+"/xrpc/com.atproto.sync.listRepos?limit=x", 400)
}

func TestAccountStates(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Repos: 1, Hosts: 2})
	a := n.Accounts()[0]
	for _, row := range []struct {
		status simnet.Status
		code   string // "" for the CAR
	}{
		{simnet.Deactivated, "RepoDeactivated"},
		{simnet.Takendown, "RepoTakendown"},
		{simnet.Suspended, "RepoSuspended"},
		{simnet.Deleted, "RepoNotFound"},
		{simnet.Active, ""}, // reactivation
	} {
		a.SetStatus(row.status)
		if row.code == "" {
			if r := get(t, repoURL(a)); r.status != 200 {
				t.Errorf("active: status %d", r.status)
			}
			continue
		}
		if e := getJSON[apiError](t, repoURL(a), 400); e.Error != row.code {
			t.Errorf("%s: %+v", row.status, e)
		}
	}
	old := repoURL(a)
	a.Migrate(n.Host(1))
	if e := getJSON[apiError](t, old, 400); e.Error != "RepoDeactivated" {
		t.Errorf("old host after migration: %+v", e)
	}
	if r := get(t, repoURL(a)); r.status != 200 {
		t.Errorf("new host after migration: %d", r.status)
	}
	if e := getJSON[apiError](t, n.Host(0).URL()+"/xrpc/com.atproto.sync.getRepo?did=did:plc:nobody", 400); e.Error != "RepoNotFound" {
		t.Errorf("unknown DID: %+v", e)
	}
}

func TestPLCDocuments(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Repos: 4, Hosts: 1, RecordsMedian: 2, P256Every: 2, LegacyEvery: 3})
	for i, a := range n.Accounts() {
		for range 2 {
			doc := getJSON[identity.DIDDocument](t, n.PLC()+"/"+a.DID(), 200)
			parsed := identity.ParseIdentity(&doc)
			key, err := parsed.PublicKey()
			handle, handleErr := parsed.DeclaredHandle()
			if err != nil || handleErr != nil {
				t.Fatal(err, handleErr)
			}
			truth := a.Truth()
			got := []string{key.DIDKey(), parsed.PDSEndpoint(), handle.String()}
			if diff := cmp.Diff([]string{truth.Key, truth.Host, truth.Handle}, got); diff != "" {
				t.Errorf("document %d: %s", i, diff)
			}
			readCAR(t, a.CAR(), a.DID(), key.DIDKey())
			a.RotateKey()
			a.SetLegacyDocument(true)
		}
	}
	get404 := getJSON[map[string]string](t, n.PLC()+"/did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", 404)
	n.Accounts()[0].Tombstone()
	get410 := getJSON[map[string]string](t, n.PLC()+"/"+n.DIDs()[0], 410)
	if get404["message"] == "" || get410["message"] == "" {
		t.Error(get404, get410)
	}
}

func TestGzipWhenAccepted(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Repos: 1, Hosts: 1, Gzip: true})
	a := n.Accounts()[0]
	r := getContext(t, t.Context(), repoURL(a), http.Header{"Accept-Encoding": {"gzip"}})
	if r.header.Get("Content-Encoding") != "gzip" || string(gunzip(t, r.body, 1<<20)) != string(a.CAR()) {
		t.Errorf("gzip: %v", r.header)
	}
	if r := get(t, repoURL(a)); string(r.body) != string(a.CAR()) {
		t.Error("not asked for gzip, not given the plain CAR")
	}
}

func TestWritesAreCheckedAndAtomic(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, simnet.Options{Repos: 1, Hosts: 1})
	a := n.Accounts()[0]
	before := a.Truth()
	post := simnet.EncodeRecord(simnet.Post("hello"))
	if _, err := a.Commit(simnet.Write{Path: "a.b.c/1", Record: post}, simnet.Write{Path: "a.b.c/2"}); err == nil {
		t.Error("delete of nothing was accepted")
	}
	if diff := cmp.Diff(before, a.Truth()); diff != "" {
		t.Errorf("failed commit left: %s", diff)
	}
	var actions []string
	for _, write := range []simnet.Write{{Path: "a.b.c/1", Record: post}, {Path: "a.b.c/1", Record: post[:1]}, {Path: "a.b.c/1"}} {
		c, err := a.Commit(write)
		if err != nil {
			t.Fatal(err)
		}
		actions = append(actions, fmt.Sprintf("%s cid=%t prev=%t", c.Ops[0].Action, c.Ops[0].CID.Defined(), c.Ops[0].Prev.Defined()))
	}
	if diff := cmp.Diff([]string{"create cid=true prev=false", "update cid=true prev=true", "delete cid=false prev=true"}, actions); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(before.Data, a.Truth().Data); diff != "" {
		t.Errorf("undone, but the tree differs: %s", diff)
	}
}
