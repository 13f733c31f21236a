package api_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cistern/api"
	"cistern/api/openapi"
	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"golang.org/x/sync/errgroup"
)

// hostile is a world in which accounts are hidden, wiped and imported again while clients ask for
// anything.
type hostile struct {
	*world
	// turns has a number for each account, which is odd while the account shows nothing.
	turns [4]atomic.Int64
	asked atomic.Int64 // requests that were answered
	left  atomic.Int64 // clients
}

// stay keeps an account hidden until clients have asked for a while.
func (h *hostile) stay() {
	for until := h.asked.Load() + 30; h.asked.Load() < until && h.left.Load() > 0; {
		<-time.After(100 * time.Microsecond)
	}
}

// secret is a text in every record of an account, and in no other.
func secret(n int) string { return fmt.Sprintf("the secret of %d", n) }

func (h *hostile) fill(t testing.TB, n int) {
	t.Helper()
	m := storetest.Records{}
	for i := range 12 {
		m[fmt.Sprintf("app.test.a/%02d", i)] = storetest.Text(fmt.Sprint(secret(n), " ", i))
	}
	h.hold(t, storetest.DID(n), m)
	h.resolved(t, storetest.DID(n), fmt.Sprintf("u%d.example.com", n))
}

// change hides or wipes an account, and brings it back.
func (h *hostile) change(t testing.TB, rng *rand.Rand) {
	t.Helper()
	n := rng.IntN(len(h.turns))
	did := storetest.DID(n)
	if wiped := rng.IntN(2) == 0; wiped {
		h.one(t, "DELETE", "/repos?purge=true", did, "purged")
		h.turns[n].Add(1)
		h.stay()
		if rng.IntN(2) == 0 {
			if err := h.store.CollectGarbage(t.Context(), func(int64, int64) {}); err != nil {
				t.Error(err)
			}
		}
		h.turns[n].Add(1)
		h.fill(t, n)
		return
	}
	status := []store.Status{store.StatusTakendown, store.StatusSuspended, store.StatusDeactivated, store.StatusDeleted}[rng.IntN(4)]
	h.update(t, did, func(b *store.Batch, r *store.Repo) { r.Status = status; b.Account(r) })
	h.turns[n].Add(1)
	h.update(t, did, func(b *store.Batch, r *store.Repo) { // what is written meanwhile is not shown either
		text := storetest.Text(fmt.Sprint(secret(n), " more ", rng.IntN(100)))
		if err := b.Apply(r, true, r.Rev, []store.Op{{Path: []byte("app.test.a/more"), Record: text, CID: repo.HashCID(text)}}); err != nil {
			t.Error(err)
		}
	})
	h.stay()
	h.turns[n].Add(1)
	h.update(t, did, func(_ *store.Batch, r *store.Repo) { r.Status = store.StatusActive })
}

// values are what clients send for any parameter.
func values() []string {
	v := []string{"", "0", "1", "2", "-1", "1e3", "18446744073709551616", "99999999999", "true", "false", "null", "time", "ndjson", "*", "!", ".", "..", "/", "a/b", "%00", "\x00", "\xff\xfe",
		"é", "🙂", "self", "04", "app.test.a", "app.test.none", "APP.TEST.A", "app", "did:", "did:plc:", "did:plc:x", "did:web:nowhere.invalid", "did:key:z", "at://x",
		"u0.example.com", "U1.example.com", "nowhere.example.com", "x.internal", "handle.invalid", "localhost", "[::1]", "host1.example.com", "host1.example.com:70000",
		"https://host1.example.com/x", "bafyreibvwnmpsa5sqcbavqkqggjnhmbwxdmbpvchv4oojbvcsdqpqzdx5e", strings.Repeat("a", 3000), strings.Repeat("a.", 126) + "com"}
	for n := range 5 {
		v = append(v, storetest.DID(n))
	}
	for i := range 3 {
		v = append(v, repo.HashCID(storetest.Text(fmt.Sprint(secret(i), " 1"))).String())
	}
	return v
}

// request returns a random request for a route: parameters of their own format for the most part.
func request(rng *rand.Rand, r openapi.Route, pool []string) url.Values {
	q := url.Values{}
	any := func() string { return pool[rng.IntN(len(pool))] }
	for _, p := range r.Parameters {
		value := any()
		switch {
		case rng.IntN(4) == 0:
		case p.Format == "did" || p.Format == "at-identifier" && rng.IntN(2) == 0:
			value = storetest.DID(rng.IntN(5))
		case p.Format == "at-identifier":
			value = fmt.Sprintf("u%d.example.com", rng.IntN(5))
		case p.Format == "nsid":
			value = "app.test.a"
		case p.Format == "record-key":
			value = fmt.Sprintf("%02d", rng.IntN(14))
		case p.Most > 0:
			value = fmt.Sprint(rng.IntN(p.Most + 2))
		case p.Values != nil:
			value = p.Values[rng.IntN(len(p.Values))]
		}
		if p.Required && rng.IntN(8) > 0 || rng.IntN(3) == 0 {
			q.Set(p.Name, value)
		}
		if rng.IntN(12) == 0 {
			q.Add(p.Name, any())
		}
	}
	return q
}

// ask sends one request, and checks the answer.
func (h *hostile) ask(rng *rand.Rand, r openapi.Route, q url.Values) error {
	defer h.asked.Add(1)
	var before, after [len(h.turns)]int64
	for n := range h.turns {
		before[n] = h.turns[n].Load()
	}
	raw := q.Encode()
	path := strings.ReplaceAll(r.Path, "{collection}", url.PathEscape(cmp.Or(q.Get("collection"), "app.test.a")))
	if rng.IntN(20) == 0 { // not even a query
		raw = strings.ReplaceAll(raw, "%", []string{"%%", "%z", ";"}[rng.IntN(3)])
	}
	req, err := http.NewRequest(http.MethodGet, h.public.URL+path+"?"+raw, nil)
	if err != nil {
		return nil // no client can send it
	}
	if rng.IntN(3) == 0 {
		req.Header.Set("If-None-Match", []string{"*", `W/"x"`, `"`, ",,,"}[rng.IntN(4)])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(res.Body)
	if err = firstOf(err, res.Body.Close()); err != nil {
		return err
	}
	for n := range h.turns {
		after[n] = h.turns[n].Load()
		hidden := before[n]%2 == 1 && before[n] == after[n]
		if hidden && strings.Contains(string(body), secret(n)) {
			return fmt.Errorf("%s?%s shows an account that is hidden: %s", r.Path, raw, body)
		}
	}
	var answer map[string]any
	switch {
	case res.StatusCode == http.StatusNotModified:
	case res.StatusCode >= 500 && !(res.StatusCode == 502 && strings.Contains(string(body), "UpstreamFailure")):
		return fmt.Errorf("%s?%s: %d %s", r.Path, raw, res.StatusCode, body)
	case res.StatusCode == 200 && (res.Header.Get("Content-Type") == "application/x-ndjson" || r.Path == "/export"):
	case res.StatusCode == 200 && res.Request.URL.Path == "/": // a collection of two dots leads to the banner
	case json.Unmarshal(body, &answer) != nil:
		return fmt.Errorf("%s?%s: %d is no object: %s", r.Path, raw, res.StatusCode, body)
	case res.StatusCode != 200 && (answer["error"] == "" || answer["message"] == "" || len(body) > 5000):
		return fmt.Errorf("%s?%s: %d %s", r.Path, raw, res.StatusCode, body)
	}
	return nil
}

func firstOf(errs ...error) error {
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return errs[i]
	}
	return nil
}

// Whatever clients ask for while accounts are hidden, wiped and imported: no answer is a failure of
// the server, and none has a record of an account that is hidden.
func TestHostileQueries(t *testing.T) {
	t.Parallel()
	for seed := range storetest.Seeds(2) {
		g := newRegistry()
		h := &hostile{world: newWorld(t, api.Options{Names: g.resolver(t)})}
		for n := range h.turns {
			h.fill(t, n)
			g.handles[fmt.Sprintf("u%d.example.com", n)] = storetest.DID(n)
		}
		var routes []openapi.Route
		for _, r := range openapi.Routes() {
			if r.Path == "/export" || (strings.HasPrefix(r.Path, "/xrpc/com.atproto.") || strings.HasPrefix(r.Path, "/co")) && r.Fields != nil {
				routes = append(routes, r)
			}
		}
		pool := values()
		var clients errgroup.Group
		h.left.Store(4)
		for c := range int64(4) {
			rng := rand.New(rand.NewPCG(seed, uint64(c)))
			clients.Go(func() error {
				defer h.left.Add(-1)
				for range 300 {
					r := routes[rng.IntN(len(routes))]
					if err := h.ask(rng, r, request(rng, r, pool)); err != nil {
						return fmt.Errorf("seed %d: %w", seed, err)
					}
				}
				return nil
			})
		}
		for rng := rand.New(rand.NewPCG(seed, 99)); h.left.Load() > 0; {
			h.world.revs++
			h.change(t, rng)
		}
		if err := clients.Wait(); err != nil {
			t.Error(err)
		}
	}
}
