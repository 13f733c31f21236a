package backfill_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/ingest/identity"
	"cistern/ingest/simnet"
	"cistern/store"
)

// elsewhere is a directory in which all accounts live at one host.
type elsewhere struct {
	backfill.Directory
	host string
}

// Resolve returns the host.
func (d elsewhere) Resolve(ctx context.Context, did string) (identity.Identity, error) {
	ident, err := d.Directory.Resolve(ctx, did)
	ident.PDS = d.host
	return ident, err
}

// TestSaysWhatCame: the row of a repository that could not be fetched states what its host sent
// instead, or that nothing arrived.
func TestSaysWhatCame(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		kind   store.ErrorKind
		want   []string
		// idle is Options.IdleTimeout, 0 for the default. Most hosts answer, however late on a busy
		// machine.
		idle time.Duration
	}{
		"a page": {func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "text/html; charset=utf-8")
			fmt.Fprint(rw, "<html>under construction")
		}, store.Generic, []string{"200", "text/html"}, 0},
		"JSON": {func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "application/json")
			fmt.Fprint(rw, `{"error":"Oops"}`)
		}, store.Generic, []string{"200", "application/json"}, 0},
		"nothing that says what it is": {func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header()["Content-Type"] = nil
			fmt.Fprint(rw, "????")
		}, store.Generic, []string{"200", "no content type"}, 0},
		"a CAR that is none": {func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "application/vnd.ipld.car")
			fmt.Fprint(rw, strings.Repeat("?", 1000))
		}, store.Generic, []string{"invalid repository data"}, 0},
		"a redirect": {func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, "ftp://elsewhere.example/repo", http.StatusFound)
		}, store.Generic, []string{"redirect refused", "ftp://elsewhere.example/repo"}, 0},
		"silence": {func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
		}, store.Transport, []string{"no answer within 300ms"}, 300 * time.Millisecond},
		"a drip": {func(rw http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(rw).Flush()
			<-r.Context().Done()
		}, store.Transport, []string{"too slowly"}, 3 * time.Second},
		"too much": {func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Length", fmt.Sprint(1<<40))
		}, store.Generic, []string{"exceeds 4294967296", "--repo-max"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := httptest.NewServer(c.answer)
			defer host.Close()
			w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}})
			did := w.Net.DIDs()[0]
			w.Stop()
			w.start(backfill.Options{Directory: elsewhere{w.Dir, host.URL}, IdleTimeout: c.idle})
			w.Add(did)
			w.Settle(did)
			r := w.Row(did)
			if r.State != store.StateResync || r.Retry.Kind != c.kind {
				t.Errorf("%v, %+v", r.State, r.Retry)
			}
			for _, part := range c.want {
				if !strings.Contains(r.Retry.Error, part) {
					t.Errorf("the row says %q, and not %q", r.Retry.Error, part)
				}
			}
			w.Stop()
		})
	}
}

// TestRefusedSeldom: a repository whose copies are rejected again and again is fetched with growing
// delays, up to a day; a repository whose host is out of order up to an hour.
func TestRefusedSeldom(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault   simnet.Fault
		options backfill.Options
		most    time.Duration
	}{
		"invalid":   {simnet.Fault{Kind: simnet.WrongHash}, backfill.Options{}, 24 * time.Hour},
		"too large": {simnet.Fault{Kind: simnet.Latency}, backfill.Options{CARBytesMax: 4096}, 24 * time.Hour},
		"too many":  {simnet.Fault{Kind: simnet.Latency}, backfill.Options{CARBlocksMax: 3}, 24 * time.Hour},
		"503":       {simnet.Fault{Kind: simnet.ServerError}, backfill.Options{}, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1, RecordsMedian: 50}, runner: c.options})
			did := w.Net.DIDs()[0]
			w.Net.Host(0).Inject(c.fault)
			w.Know(did)
			w.Change(did, func(r *store.Repo) { r.Retry.Count = 30 })
			w.Add(did)
			w.Settle(did)
			r := w.Row(did)
			wait := time.Unix(r.Retry.Next, 0).Sub(w.Clock.Now())
			if r.State != store.StateResync || wait < c.most*89/100 || wait > c.most*111/100 {
				t.Errorf("%v, again in %s: %+v", r.State, wait, r.Retry)
			}
		})
	}
}
