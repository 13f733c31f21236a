//go:build realnet

// The answers of every endpoint that the reference PDS has too, compared with those of the PDS.

package main_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// answer is the status of an answer, with its body or the name of its error. The messages of errors
// are for people, and differ.
type answer struct {
	Status int
	Error  string
	Body   any
}

func (a answer) String() string {
	text, _ := json.Marshal(a.Body)
	return fmt.Sprintf("%d %s %.1000s", a.Status, a.Error, text)
}

func fetchAnswer(t *testing.T, base, method string, q url.Values) answer {
	t.Helper()
	res, err := http.Get(base + "/xrpc/" + method + "?" + q.Encode())
	must(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	must(t, err)
	a := answer{Status: res.StatusCode}
	if err := decodeJSON(strings.NewReader(string(text)), &a.Body); err != nil {
		t.Fatalf("%s%s %v: %d %.300s", base, method, q, res.StatusCode, text)
	}
	if body, ok := a.Body.(map[string]any); ok && res.StatusCode != http.StatusOK {
		a.Error, _ = body["error"].(string)
		a.Body = nil
	}
	return a
}

// compareAnswer asks Cistern and the host of an account. normal removes what differs for a reason
// from a body; nil removes nothing.
func (x *realIndex) compareAnswer(t *testing.T, host, method string, q url.Values, normal func(map[string]any)) answer {
	t.Helper()
	got, want := fetchAnswer(t, "http://"+x.public, method, q), fetchAnswer(t, host, method, q)
	for _, a := range []answer{got, want} {
		if body, ok := a.Body.(map[string]any); ok && normal != nil {
			normal(body)
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s %v: got\n%s, want\n%s", method, q, got, want)
	}
	return want
}

// hostOf returns the host of an account, as its document names it.
func (x *realIndex) hostOf(t *testing.T, did string) string {
	t.Helper()
	var row struct{ PDS string }
	must(t, getJSON("http://"+x.admin+"/repos/"+did, nil, &row))
	return row.PDS
}

// compareAnswers asks about some accounts what clients ask, with right and wrong parameters.
func (x *realIndex) compareAnswers(t *testing.T, truth realTruth) {
	t.Helper()
	dids := slices.Sorted(maps.Keys(truth.accounts))
	for i, did := range dids {
		if i < 8 || !truth.accounts[did].Active {
			x.compareAnswersOf(t, did, truth)
		}
	}
	for _, host := range x.hosts.PDS {
		unknown, none := "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", url.Values{}
		for _, method := range []string{"getLatestCommit", "getRepoStatus"} {
			x.compareAnswer(t, host, "com.atproto.sync."+method, url.Values{"did": {unknown}}, nil)
			x.compareAnswer(t, host, "com.atproto.sync."+method, url.Values{"did": {"did:"}}, nil)
			x.compareAnswer(t, host, "com.atproto.sync."+method, none, nil)
		}
		for _, limit := range []string{"0", "1001", "-1", "x", "1.5"} {
			x.compareAnswer(t, host, "com.atproto.sync.listRepos", url.Values{"limit": {limit}}, nil)
		}
		for _, method := range []string{"getRecord", "listRecords", "describeRepo"} {
			x.compareAnswer(t, host, "com.atproto.repo."+method, none, nil)
			x.compareAnswer(t, host, "com.atproto.repo."+method, url.Values{"repo": {"!"}, "collection": {"app.bsky.feed.post"}, "rkey": {"x"}}, nil)
		}
		x.compareAnswer(t, host, "com.atproto.repo.listRecords", url.Values{"repo": {unknown}, "collection": {"app.bsky.feed.post"}}, nil)
		x.compareAnswer(t, host, "com.atproto.identity.resolveHandle", none, nil)
		x.compareAnswer(t, host, "com.atproto.identity.resolveHandle", url.Values{"handle": {"!"}}, nil)
	}
}

// compareAnswersOf compares all answers about one account.
func (x *realIndex) compareAnswersOf(t *testing.T, did string, truth realTruth) {
	t.Helper()
	host := x.hostOf(t, did)
	for _, method := range []string{"getLatestCommit", "getRepoStatus"} {
		x.compareAnswer(t, host, "com.atproto.sync."+method, url.Values{"did": {did}}, nil)
	}
	x.compareAnswer(t, host, "com.atproto.repo.describeRepo", url.Values{"repo": {did}}, func(body map[string]any) {
		delete(body, "handleIsCorrect") // the handles of the test lead nowhere: the PDS knows its own
		if doc, ok := body["didDoc"].(map[string]any); ok {
			normalDocument(doc)
		}
		if list, ok := body["collections"].([]any); ok {
			slices.SortFunc(list, func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
		}
	})
	records := truth.records[did]
	paths := slices.Sorted(maps.Keys(records))
	for i := 0; i < len(paths); i += max(1, len(paths)/10) {
		collection, rkey, _ := strings.Cut(paths[i], "/")
		q := url.Values{"repo": {did}, "collection": {collection}, "rkey": {rkey}}
		x.compareAnswer(t, host, "com.atproto.repo.getRecord", q, nil)
		q.Set("cid", records[paths[i]].CID)
		x.compareAnswer(t, host, "com.atproto.repo.getRecord", q, nil)
		q.Set("cid", records[paths[(i+1)%len(paths)]].CID)
		if len(paths) > 1 {
			x.compareAnswer(t, host, "com.atproto.repo.getRecord", q, nil)
		}
		q.Set("cid", "x")
		x.compareAnswer(t, host, "com.atproto.repo.getRecord", q, nil)
		q.Del("cid")
		q.Set("rkey", "none")
		x.compareAnswer(t, host, "com.atproto.repo.getRecord", q, nil)
		for _, bad := range []url.Values{{"repo": {did}, "collection": {"x"}, "rkey": {rkey}}, {"repo": {did}, "collection": {collection}, "rkey": {"a/b"}}, {"repo": {did}, "collection": {collection}}} {
			x.compareAnswer(t, host, "com.atproto.repo.getRecord", bad, nil)
		}
	}
	x.compareLists(t, host, did, append(truth.accounts[did].Collections, "org.example.none"))
}

// normalDocument removes from a document what Cistern does not keep of it: the contexts, which
// differ between directories, and the form of the key, which Cistern always writes as a Multikey.
func normalDocument(doc map[string]any) {
	delete(doc, "@context")
	methods, _ := doc["verificationMethod"].([]any)
	for _, m := range methods {
		if method, ok := m.(map[string]any); ok && len(methods) == 1 {
			delete(method, "type")
			delete(method, "id") // the older form has no DID in it
			delete(method, "publicKeyMultibase")
		}
	}
}

// compareLists compares the pages of collections, in both orders and of several sizes, each with its
// cursor.
func (x *realIndex) compareLists(t *testing.T, host, did string, collections []string) {
	t.Helper()
	const method = "com.atproto.repo.listRecords"
	for _, collection := range collections {
		for _, reverse := range []string{"true", "false"} {
			for _, limit := range []string{"", "1", "3", "100"} {
				q := url.Values{"repo": {did}, "collection": {collection}, "reverse": {reverse}}
				if limit != "" {
					q.Set("limit", limit)
				}
				for range 8 { // pages
					page := x.compareAnswer(t, host, method, q, nil)
					body, _ := page.Body.(map[string]any)
					cursor, ok := body["cursor"].(string)
					if !ok {
						break
					}
					q.Set("cursor", cursor)
				}
			}
		}
		for _, wrong := range []url.Values{{"limit": {"0"}}, {"limit": {"101"}}, {"limit": {"x"}}, {"reverse": {"x"}}} {
			wrong.Set("repo", did)
			wrong.Set("collection", collection)
			x.compareAnswer(t, host, method, wrong, nil)
		}
		for _, cursor := range []string{"3", "zzzz", "a/b", " "} {
			x.compareAnswer(t, host, method, url.Values{"repo": {did}, "collection": {collection}, "cursor": {cursor}}, nil)
		}
	}
}
