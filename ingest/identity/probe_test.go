package identity_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"cistern/ingest/identity"
	"cistern/ingest/simnet"
)

// TestFaultsOfADirectory: a directory that stops answering has a fault after some probes, in each way to
// stop, and loses the fault some minutes after it is back, without a lookup (invariant 9).
func TestFaultsOfADirectory(t *testing.T) {
	t.Parallel()
	for name, way := range map[string]struct {
		fault simnet.Fault // none: nothing listens
		want  string
	}{
		"error":   {simnet.Fault{Kind: simnet.ServerError}, "HTTP 503"},
		"silence": {simnet.Fault{Kind: simnet.Hang}, "no answer from"},
		"page":    {simnet.Fault{Kind: simnet.Garbage}, "not JSON"},
		"limit":   {simnet.Fault{Kind: simnet.RateLimited, RetryAfter: time.Second}, "HTTP 429"},
		"refused": {want: "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := startNetwork(t, simnet.Options{Repos: 2})
			var c clock
			d := newDirectory(t, identity.Options{PLC: []string{n.PLC()}, ProbeEvery: 5 * time.Millisecond,
				Timeout: 500 * time.Millisecond, Now: c.now})
			var back func()
			if way.fault.Kind != 0 {
				back = n.PLCHost().Inject(way.fault).Clear
			} else {
				if err := n.PLCHost().Down(); err != nil {
					t.Fatal(err)
				}
				back = func() {
					if err := n.PLCHost().Up(); err != nil {
						t.Error(err)
					}
				}
			}
			if _, err := d.Resolve(t.Context(), n.DIDs()[0]); err == nil {
				t.Fatal("the lookup succeeded")
			}
			if all := d.Faults(); len(all) != 0 {
				t.Fatalf("faults after one request: %+v", all)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- d.Run(ctx) }()
			waitFor(t, func() bool { return len(d.Faults()) == 1 })
			since := c.now()
			c.advance(time.Millisecond)
			waitFor(t, func() bool { return d.Faults()[0].Asked > 5 })
			all := d.Faults()
			if all[0].Base != n.PLC() || all[0].Failed < 5 || all[0].Attempts < 1 || !strings.Contains(all[0].Error, way.want) ||
				strings.Contains(all[0].Error, "did:plc") || !all[0].Since.Equal(since) {
				t.Fatalf("faults %+v, want %q since %s", all, way.want, since)
			}
			back()
			c.advance(identity.FaultWindow)
			waitFor(t, func() bool { return d.Faults()[0].Well })
			c.advance(identity.WellTime)
			waitFor(t, func() bool { return len(d.Faults()) == 0 })
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAnswersAreNoFaults: that DIDs do not exist, are gone or have a useless document says nothing
// about the directory, nor do callers that give up.
func TestAnswersAreNoFaults(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Repos: 2 * identity.FaultLeast})
	d := newDirectory(t, identity.Options{PLC: []string{n.PLC()}, BodyMax: 4 << 10})
	for i := range identity.FaultLeast {
		missing := "did:plc:" + strings.Repeat("z", 23) + string(rune('a'+i))
		if _, err := d.Resolve(t.Context(), missing); !errors.Is(err, identity.ErrNotFound) {
			t.Errorf("a missing DID: %v", err)
		}
		a := n.Accounts()[2*i]
		a.Tombstone()
		if _, err := d.Resolve(t.Context(), a.DID()); !errors.Is(err, identity.ErrGone) {
			t.Errorf("a tombstone: %v", err)
		}
		one := n.DIDs()[2*i+1]
		hang := n.PLCHost().Inject(simnet.Fault{Kind: simnet.Hang, DID: one})
		ctx, cancel := context.WithCancel(t.Context())
		given := make(chan error, 1)
		go func() {
			_, err := d.Resolve(ctx, one)
			given <- err
		}()
		waitFor(t, func() bool { return hang.Fired() > 0 })
		cancel()
		if err := <-given; !errors.Is(err, context.Canceled) {
			t.Errorf("a caller gave up: %v", err)
		}
		hang.Clear()
	}
	if all := d.Faults(); len(all) > 0 {
		t.Errorf("faults after answers: %+v", all)
	}
}

// TestFaultsOfOddAnswers: a directory that answers each request, but not about the DID, is a fault, and
// its pages never mean that a DID does not exist.
func TestFaultsOfOddAnswers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status            int
		contentType, body string
		want              string // the error of the fault; "": none
		missing           bool
	}{
		"page without the DID":  {404, "text/html; charset=utf-8", "<html>Cannot GET /", "HTTP 404 from ", false},
		"page of an old domain": {410, "text/html", "<html>This domain is for sale", "HTTP 410 from ", false},
		"page of many bytes":    {200, "text/html", "<html>" + strings.Repeat("x", 100<<10), "is not JSON", false},
		"JSON of another kind":  {200, "application/json", `{"error":"maintenance"}`, "not about the DID", false},
		"null":                  {200, "application/json", "null", "not about the DID", false},
		"JSON without the DID":  {404, "application/json", `{"message":"DID not registered"}`, "", true},
		"text without the DID":  {404, "text/plain", "not found", "", true},
		"nothing":               {404, "", "", "", true},
		"tombstone":             {410, "application/json", "{}", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", c.contentType)
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			}))
			t.Cleanup(server.Close)
			d := newDirectory(t, identity.Options{PLC: []string{server.URL}})
			for i := range identity.FaultLeast {
				_, err := d.Resolve(t.Context(), account(i))
				if err == nil || errors.Is(err, identity.ErrNotFound) != c.missing {
					t.Errorf("missing is not %v: %v", c.missing, err)
				}
			}
			all := d.Faults()
			if (len(all) > 0) != (c.want != "") || c.want != "" && !strings.Contains(all[0].Error, c.want) {
				t.Errorf("faults %+v, want %q", all, c.want)
			}
		})
	}
}

// TestProbeHasTheTimeOfALookup: directories that are too slow for lookups, which give each of them a
// share of the time, stay faults.
func TestProbeHasTheTimeOfALookup(t *testing.T) {
	slow := func(request) reply { return reply{status: http.StatusNotFound, after: 1500 * time.Millisecond} }
	observe(t, []string{firstPLC, secondPLC}, slow, func(o *observer) {
		for range 20 { // each directory has a second of the two
			if err := o.lookUp(o.t.Context()); err == nil || errors.Is(err, identity.ErrNotFound) {
				o.t.Errorf("a lookup ended with %v", err)
			}
		}
		before := o.d.Faults()
		time.Sleep(3 * time.Minute)
		after := o.d.Faults()
		if len(before) != 2 || len(after) != 2 {
			o.t.Fatalf("faults %+v, then %+v", before, after)
		}
		for i, f := range after {
			if f.Failed != f.Asked || f.Attempts < before[i].Attempts+3 {
				o.t.Errorf("faults %+v, then %+v", before, after)
			}
		}
	})
}
