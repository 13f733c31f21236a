package api_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"cistern/api"
	"cistern/store"
	"cistern/store/linkindex"
	"cistern/store/storetest"

	"github.com/fxamacker/cbor/v2"
)

// newIndexed is newWorld with an index of links.
func newIndexed(t testing.TB, o api.Options) *world {
	t.Helper()
	s := storetest.Open(t, store.Options{})
	x, err := linkindex.Open(linkindex.Options{Store: s, Dir: "links"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- x.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, x.Close()); err != nil {
			t.Error(err)
		}
	})
	o.Backlinks = x
	return newWorldOn(t, s, o)
}

// linkRecord returns a record that links to a subject, and to another as via.uri.
func linkRecord(t testing.TB, subject, via string) []byte {
	t.Helper()
	mode, err := cbor.CanonicalEncOptions().EncMode()
	if err != nil {
		t.Fatal(err)
	}
	b, err := mode.Marshal(map[string]any{"subject": map[string]string{"uri": subject}, "via": map[string]string{"uri": via}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestBacklinkRoutes asks over HTTP: an answer states how far the index has come, and an error has no
// body, but a header with the reason.
func TestBacklinkRoutes(t *testing.T) {
	t.Parallel()
	w := newIndexed(t, api.Options{})
	w.hold(t, alice, storetest.Records{"app.test.a/one": linkRecord(t, bob, carol)})
	subject := url.Values{"subject": {bob}, "source": {"app.test.a:subject.uri"}}
	target := url.Values{"target": {bob}, "collection": {"app.test.a"}, "path": {".subject.uri"}}
	count := w.public.URL + "/xrpc/blue.microcosm.links.getBacklinksCount?"
	for {
		var got struct{ Total int }
		res := call(t, "GET", count+subject.Encode(), "", nil, &got)
		if res.Header.Get("Cistern-Epoch") != w.store.Epoch() || res.Header.Get("Cistern-Through") == "" {
			t.Fatalf("header %v", res.Header)
		}
		if got.Total == 1 {
			break
		}
		<-time.After(time.Millisecond)
	}
	for _, base := range []string{w.public.URL, w.admin.URL} {
		var older struct{ Total int }
		if res := call(t, "GET", base+"/links/count?"+target.Encode(), "", nil, &older); res.StatusCode != 200 || older.Total != 1 {
			t.Errorf("/links/count: %d %+v", res.StatusCode, older)
		}
	}
	many := url.Values{"pathToOther": {"via.uri"}, "otherSubject": {carol, bob}, "linkDid": {alice, bob}}
	for k, v := range subject {
		many[k] = v
	}
	var pairs struct {
		Items []struct{ OtherSubject string }
	}
	if w.get(t, "blue.microcosm.links.getManyToMany", many, &pairs); len(pairs.Items) != 1 || pairs.Items[0].OtherSubject != carol {
		t.Errorf("getManyToMany: %+v", pairs)
	}
	for _, path := range []string{
		"/xrpc/blue.microcosm.links.getBacklinks?source=app.test.a:subject.uri&limit=1001&subject=" + bob,
		"/xrpc/blue.microcosm.links.getBacklinks?source=app.test.a&subject=" + bob,
		"/xrpc/blue.microcosm.links.getBacklinksCount?source=a&source=b&subject=" + bob, // given twice
		"/links?" + target.Encode() + "&cursor=x", "/links/all",
	} {
		var body string
		res := call(t, "GET", w.public.URL+path, "", nil, &body)
		if reason := res.Header.Get("Cistern-Error"); res.StatusCode != 400 || body != "" || !strings.HasPrefix(reason, "InvalidRequest: ") {
			t.Errorf("%s: %d %q, reason %q", path, res.StatusCode, body, reason)
		}
	}
}

// TestBacklinksDisabled: without an index the answer names the option.
func TestBacklinksDisabled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	w.refuses(t, "blue.microcosm.links.getBacklinks", nil, http.StatusNotImplemented, "BacklinksDisabled", "--backlinks")
	var e refused
	if res := call(t, "GET", w.public.URL+"/links/all?target=did:plc:x", "", nil, &e); res.StatusCode != http.StatusNotImplemented || e.Error != "BacklinksDisabled" {
		t.Errorf("/links/all: %d %+v", res.StatusCode, e)
	}
	other := newWorldOn(t, storetest.Open(t, store.Options{Ephemeral: true, Retention: time.Hour}), api.Options{})
	other.refuses(t, "blue.microcosm.links.getBacklinks", nil, http.StatusNotImplemented, "EventsOnly", "--ephemeral")
}
