package discover_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"cistern/backfill/discover"
	"cistern/filter"
	"cistern/ingest/simnet"
)

// TestSaysWhyListIsUnreadable: the status of a source whose list cannot be read states the reason.
func TestSaysWhyListIsUnreadable(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ kind, body, want string }{
		"a page":    {"text/html", "<html>", "200 with text/html"},
		"cut short": {"application/json", `{"repos":[`, "unexpected end"},
		"a number":  {"application/json", `{"repos":[],"cursor":5}`, "cursor"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Content-Type", c.kind)
				fmt.Fprint(rw, c.body)
			}))
			defer host.Close()
			w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}})
			w.Filter(filter.Config{Mode: filter.ModeFull})
			w.Stop()
			w.start(discover.Options{Crawl: []discover.Source{{Kind: discover.SourceRepos, URL: host.URL}}})
			w.Until("the failure", func() bool { return w.crawls().Failing == 1 })
			if err := w.crawls().Failure; !strings.Contains(err, c.want) {
				t.Errorf("it says %q, not %q", err, c.want)
			}
			w.Stop()
		})
	}
}
