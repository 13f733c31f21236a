package api_test

import (
	"net/url"
	"testing"

	"cistern/api"
	"cistern/store"
	"cistern/store/storetest"
)

// TestGetRecordByURI asks for a record under both names of the method.
func TestGetRecordByURI(t *testing.T) {
	t.Parallel()
	g := newRegistry()
	w := newWorld(t, api.Options{Names: g.resolver(t)})
	w.hold(t, alice, storetest.Records{"app.test.a/one": storetest.Text("x"), "app.test.a/two": storetest.Text("y")})
	w.resolved(t, alice, "alice.example.com")
	g.handles["alice.example.com"], g.handles["mallory.example.com"] = alice, alice
	for _, method := range []string{"blue.microcosm.repo.getRecordByUri", "com.bad-example.repo.getUriRecord"} {
		var got, want, two struct {
			URI, CID string
			Value    any
		}
		w.get(t, "com.atproto.repo.getRecord", url.Values{"repo": {alice}, "collection": {"app.test.a"}, "rkey": {"one"}}, &want)
		uri := "at://" + alice + "/app.test.a/one"
		for _, q := range []url.Values{
			{"at_uri": {uri}},
			{"at_uri": {uri}, "cid": {want.CID}},
			{"at_uri": {"at://alice.example.com/app.test.a/one"}}, // the answer has the DID
		} {
			if w.get(t, method, q, &got); got.URI != uri || got.CID != want.CID || got.Value == nil {
				t.Errorf("%s %v: %+v, want %+v", method, q, got, want)
			}
		}
		w.get(t, "com.atproto.repo.getRecord", url.Values{"repo": {alice}, "collection": {"app.test.a"}, "rkey": {"two"}}, &two)
		w.refuses(t, method, url.Values{"at_uri": {uri}, "cid": {two.CID}}, 404, "RecordNotFound", uri) // another version
		w.refuses(t, method, url.Values{"at_uri": {uri + "x"}}, 404, "RecordNotFound", uri+"x")
		w.refuses(t, method, url.Values{}, 400, "InvalidRequest", `"at_uri"`)
		for _, bad := range []string{
			"alice", "at://", "at://" + alice, "at://" + alice + "/app.test.a", "at://" + alice + "/app.test.a/",
			"at://" + alice + "/nsid/one", uri + "/x", uri + "#x", uri + "?x", "https" + uri[2:], "at:///app.test.a/one",
		} {
			w.refuses(t, method, url.Values{"at_uri": {bad}}, 400, "InvalidRequest", "")
		}
		w.refuses(t, method, url.Values{"at_uri": {uri}, "cid": {"x"}}, 400, "InvalidRequest", "cid")
		w.refuses(t, method, url.Values{"at_uri": {"at://mallory.example.com/app.test.a/one"}}, 400, "HandleNotFound", "does not claim it")
		w.refuses(t, method, url.Values{"at_uri": {"at://" + bob + "/app.test.a/one"}}, 400, "InvalidRequest", bob)
	}
	w.update(t, alice, func(b *store.Batch, r *store.Repo) { r.Status = store.StatusTakendown; b.Account(r) })
	w.refuses(t, "blue.microcosm.repo.getRecordByUri", url.Values{"at_uri": {"at://" + alice + "/app.test.a/one"}}, 400, "InvalidRequest", "takendown")
}

// TestResolveMiniDoc resolves accounts under both names of the method.
func TestResolveMiniDoc(t *testing.T) {
	t.Parallel()
	g := newRegistry()
	w := newWorld(t, api.Options{Names: g.resolver(t)})
	g.handles["alice.example.com"], g.handles["other.example.com"] = alice, alice
	g.docs[alice], g.docs[bob], g.docs[storetest.DID(50)] = "alice.example.com", "bob.example.com", "gone"
	for _, method := range []string{"blue.microcosm.identity.resolveMiniDoc", "com.bad-example.identity.resolveMiniDoc"} {
		for _, c := range []struct{ identifier, did, handle string }{
			{alice, alice, "alice.example.com"},
			{"Alice.example.com", alice, "alice.example.com"},
			{"other.example.com", alice, "alice.example.com"},
			{bob, bob, "handle.invalid"}, // claims what leads nowhere
		} {
			var got map[string]string
			w.get(t, method, url.Values{"identifier": {c.identifier}}, &got)
			if len(got) != 4 || got["did"] != c.did || got["handle"] != c.handle || got["pds"] != "https://pds.test" || got["signing_key"] != testKey {
				t.Errorf("%s of %s: %v", method, c.identifier, got)
			}
		}
		w.refuses(t, method, url.Values{"identifier": {carol}}, 400, "DidNotFound", carol)
		w.refuses(t, method, url.Values{"identifier": {storetest.DID(50)}}, 400, "DidDeactivated", "")
		w.refuses(t, method, url.Values{"identifier": {"nowhere.example.com"}}, 400, "HandleNotFound", "")
		w.refuses(t, method, url.Values{"identifier": {"!"}}, 400, "InvalidRequest", "")
		w.refuses(t, method, nil, 400, "InvalidRequest", `"identifier"`)
	}
	w.add(t, carol) // its row names no host
	w.resolved(t, carol, "carol.example.com")
	w.update(t, carol, func(_ *store.Batch, r *store.Repo) { r.PDS, r.Key = "", "" })
	w.refuses(t, "blue.microcosm.identity.resolveMiniDoc", url.Values{"identifier": {carol}}, 400, "DidNotFound", "no host")
}
