package simnet_test

import (
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"cistern/ingest/simnet"
)

// number reads a number from the header of an answer.
func (r reply) number(t testing.TB, name string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(r.header.Get(name), 10, 64)
	if err != nil {
		t.Fatalf("%s in %v: %v", name, r.header, err)
	}
	return n
}

// TestWindow wants every answer to tell of the window as the reference PDS does, and those beyond it refused and counted.
func TestWindow(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Repos: 1, Hosts: 1, Limit: simnet.Limit{Requests: 3, Window: time.Hour}})
	a := n.Accounts()[0]
	for i := range int64(5) {
		r := get(t, repoURL(a))
		if r.number(t, "RateLimit-Limit") != 3 || r.number(t, "RateLimit-Remaining") != max(0, 2-i) || r.header.Get("RateLimit-Policy") != "3;w=3600" {
			t.Errorf("answer %d tells %v", i, r.header)
		}
		if left := time.Until(time.Unix(r.number(t, "RateLimit-Reset"), 0)); left < 50*time.Minute || left > time.Hour+time.Second {
			t.Errorf("answer %d: the window ends in %s", i, left)
		}
		want := http.StatusOK
		if i >= 3 {
			want = http.StatusTooManyRequests
			if r.number(t, "Retry-After") < 3000 {
				t.Errorf("answer %d: retry after %s", i, r.header.Get("Retry-After"))
			}
		}
		if r.status != want {
			t.Errorf("answer %d: %d, want %d", i, r.status, want)
		}
	}
	if log := n.Host(0).Log(); log.Refused != 2 || log.Violations() != 0 {
		t.Errorf("refused %d, violations %d: the answers that tell are not a second old", log.Refused, log.Violations())
	}
	n.Host(0).SetLimit(simnet.Limit{Requests: 2, Window: time.Second})
	if r := get(t, repoURL(a)); r.status != http.StatusOK {
		t.Errorf("in another window: %d", r.status)
	}
}

// TestEarly: requests before the time that an answer named are counted, for each way to name it.
func TestEarly(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	faults := map[string]simnet.Fault{
		"429 with seconds": {Kind: simnet.RateLimited, RetryAfter: time.Minute},
		"429 with a date":  {Kind: simnet.RateLimited, RetryAfter: time.Minute, RetryAs: simnet.RetryDate},
		"429 with a reset": {Kind: simnet.RateLimited, RetryAfter: time.Minute, RetryAs: simnet.RateLimitReset},
		"503 with seconds": {Kind: simnet.ServerError, RetryAfter: time.Minute},
		"nothing remains":  {},
		// these name no time
		"429 without": {Kind: simnet.RateLimited, RetryAfter: time.Minute, RetryAs: simnet.RetryUnsaid},
		"503 without": {Kind: simnet.ServerError},
	}
	for name, f := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := startNetwork(t, simnet.Options{Repos: 1, Hosts: 1})
			h, a := n.Host(0), n.Accounts()[0]
			if f.Kind == 0 {
				h.SetLimit(simnet.Limit{Requests: 1, Window: time.Hour})
			} else {
				f.Count = 1
				h.Inject(f)
			}
			get(t, repoURL(a))
			get(t, repoURL(a)) // may have crossed the answer
			if v := h.Log().Violations(); v != 0 {
				t.Errorf("%d violations at once", v)
			}
			waitForDuration(t, 1100*time.Millisecond)
			get(t, repoURL(a))
			want := 1
			if name == "429 without" || name == "503 without" {
				want = 0
			}
			if v := h.Log().Early["com.atproto.sync.getRepo"]; v != want {
				t.Errorf("%d came early, want %d", v, want)
			}
			h.ResetLog()
			if log := h.Log(); log.Violations() != 0 || log.Refused != 0 {
				t.Errorf("after a reset: %+v", log)
			}
		})
	}
}

// TestInFlight answers no more requests at a time than the limit, streams aside.
func TestInFlight(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Repos: 4, Hosts: 1, Limit: simnet.Limit{InFlight: 2}})
	h := n.Host(0)
	dial(t, h, "")
	if err := h.WaitConnections(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	h.Inject(simnet.Fault{Kind: simnet.Gate, Hook: func() { <-release }, Count: 2})
	var wg sync.WaitGroup
	for _, a := range n.Accounts()[:2] {
		wg.Go(func() {
			if r := get(t, repoURL(a)); r.status != http.StatusOK {
				t.Errorf("within the limit: %d", r.status)
			}
		})
	}
	waitFor(t, func() bool { return h.Log().InFlight == 2 })
	if r := get(t, repoURL(n.Accounts()[2])); r.status != http.StatusTooManyRequests || r.number(t, "Retry-After") != 1 {
		t.Errorf("a third: %d %v", r.status, r.header)
	}
	close(release)
	wg.Wait()
	if r := get(t, repoURL(n.Accounts()[2])); r.status != http.StatusOK {
		t.Errorf("after them: %d", r.status)
	}
	if log := h.Log(); log.Excess != 1 || log.Violations() != 1 {
		t.Errorf("excess %d, violations %d", log.Excess, log.Violations())
	}
}

// TestDeadHostResetsAndReturns: connections to a dead host are noted, and served after it returns.
func TestDeadHostResetsAndReturns(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Repos: 1, Hosts: 1})
	h, a := n.Host(0), n.Accounts()[0]
	h.Inject(simnet.Fault{Kind: simnet.Hang, Count: 1})
	broken := make(chan reply)
	go func() { broken <- get(t, repoURL(a)) }()
	waitFor(t, func() bool { return h.Log().InFlight == 1 })
	if err := h.Die(); err != nil {
		t.Fatal(err)
	}
	if r := <-broken; r.err == nil {
		t.Errorf("the request in flight was answered: %d", r.status)
	}
	before := h.URL()
	for range 3 {
		if r := get(t, repoURL(a)); r.err == nil {
			t.Errorf("dead, and answers %d", r.status)
		}
	}
	if log := h.Log(); len(log.Resets) < 3 || log.Requests["com.atproto.sync.getRepo"] != 1 {
		t.Errorf("log %+v", log)
	}
	if err := h.Up(); err != nil {
		t.Fatal(err)
	}
	if r := get(t, repoURL(a)); r.status != http.StatusOK || h.URL() != before {
		t.Errorf("returned: %d %v", r.status, r.err)
	}
}

// waitForDuration lets time pass that hosts measure by the clock.
func waitForDuration(t testing.TB, d time.Duration) {
	t.Helper()
	until := time.Now().Add(d)
	waitFor(t, func() bool { return time.Now().After(until) })
}
