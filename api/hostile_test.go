package api_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cistern/api"
	"cistern/api/openapi"
	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/gorilla/websocket"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
	"golang.org/x/sync/errgroup"
)

// hostile is a world in which accounts write, are hidden, wiped and imported again while clients ask
// for anything.
type hostile struct {
	*world
	// turns has a number for each account, which is odd while the account shows nothing.
	turns [4]atomic.Int64
	asked atomic.Int64 // requests that were answered
	left  atomic.Int64 // clients
	dicts [][]byte     // of compressed messages

	mu      sync.Mutex
	cursors map[string][]string // mu guards: path of a route → what its answers named to go on from
}

// stay keeps an account hidden until clients have asked for a while.
func (h *hostile) stay() {
	for until := h.asked.Load() + 30; h.asked.Load() < until && h.left.Load() > 0; {
		<-time.After(100 * time.Microsecond)
	}
}

// secret is a text in every record of an account, and in no other.
func secret(n int) string { return fmt.Sprintf("secret-of-%d", n) }

// hub is what all accounts link to.
const hub = "https://hub.example/x"

// record returns a record of an account, which links to the hub and to a subject of its own.
func (h *hostile) record(t testing.TB, n, i int) []byte {
	t.Helper()
	return linkRecord(t, hub, fmt.Sprintf("https://%s.example/%d", secret(n), i))
}

func (h *hostile) fill(t testing.TB, n int) {
	t.Helper()
	m := storetest.Records{}
	for i := range 12 {
		m[fmt.Sprintf("app.test.a/%02d", i)] = h.record(t, n, i)
		m[fmt.Sprintf("app.test.b/%s.%d", secret(n), i)] = h.record(t, n, i)
	}
	h.hold(t, storetest.DID(n), m)
	h.resolved(t, storetest.DID(n), fmt.Sprintf("u%d.example.com", n))
}

// write changes records of an account, whether it is shown or not.
func (h *hostile) write(t testing.TB, rng *rand.Rand, n int) {
	t.Helper()
	rkey := fmt.Sprintf("%s.%d", secret(n), rng.IntN(20))
	h.update(t, storetest.DID(n), func(b *store.Batch, r *store.Repo) {
		op := store.Op{Path: []byte("app.test.b/" + rkey)}
		if _, err := h.store.Record(r, "app.test.b", rkey); err != nil || rng.IntN(2) == 0 {
			op.Record = h.record(t, n, 100+rng.IntN(100))
			op.CID = repo.HashCID(op.Record)
		}
		if err := b.Apply(r, true, r.Rev, []store.Op{op}); err != nil {
			t.Error(err)
		}
	})
}

// change writes to an account, or hides or wipes it, and brings it back.
func (h *hostile) change(t testing.TB, rng *rand.Rand) {
	t.Helper()
	n := rng.IntN(len(h.turns))
	did := storetest.DID(n)
	switch rng.IntN(4) {
	case 0:
		h.write(t, rng, n)
	case 1:
		h.one(t, "DELETE", "/repos?purge=true", did, "purged")
		h.turns[n].Add(1)
		h.stay()
		quiet := func(int64, int64) {}
		if rng.IntN(2) == 0 {
			if err := errors.Join(h.store.Prune(t.Context(), quiet), h.store.CollectGarbage(t.Context(), quiet)); err != nil {
				t.Error(err)
			}
		}
		h.turns[n].Add(1)
		h.fill(t, n)
	default:
		status := []store.Status{store.StatusTakendown, store.StatusSuspended, store.StatusDeactivated, store.StatusDeleted}[rng.IntN(4)]
		h.update(t, did, func(b *store.Batch, r *store.Repo) { r.Status = status; b.Account(r) })
		h.turns[n].Add(1)
		h.write(t, rng, n) // is not shown either
		h.stay()
		h.turns[n].Add(1)
		h.update(t, did, func(b *store.Batch, r *store.Repo) {
			r.Status = store.StatusActive
			if err := b.Relist(r); err != nil {
				t.Error(err)
			}
		})
	}
}

// values are what clients send for any parameter.
func values(t testing.TB) []string {
	v := []string{"", "0", "1", "2", "-1", "1e3", "18446744073709551616", "99999999999", "true", "false", "null", "time", "ndjson", "*", "!", ".", "..", "/", "a/b", "%00", "\x00", "\xff\xfe",
		"é", "🙂", "self", "04", "app.test.a", "app.test.none", "APP.TEST.A", "app", "did:", "did:plc:", "did:plc:x", "did:web:nowhere.invalid", "did:key:z", "at://x",
		"u0.example.com", "U1.example.com", "nowhere.example.com", "x.internal", "handle.invalid", "localhost", "[::1]", "host1.example.com", "host1.example.com:70000",
		"https://host1.example.com/x", hub, "app.test.a:subject.uri", "app.test.b:subject.uri", ".subject.uri", "via.uri", "parquet", "car", "cbor", "zstd", "record,account", "bafyreibvwnmpsa5sqcbavqkqggjnhmbwxdmbpvchv4oojbvcsdqpqzdx5e", strings.Repeat("a", 3000), strings.Repeat("a.", 126) + "com"}
	for n := range 5 {
		v = append(v, storetest.DID(n))
	}
	for i := range 3 {
		v = append(v, repo.HashCID(linkRecord(t, hub, fmt.Sprintf("https://%s.example/1", secret(i)))).String())
	}
	return v
}

// request returns a random request for a route: parameters of their own format for the most part.
func (h *hostile) request(rng *rand.Rand, r openapi.Route, pool []string) url.Values {
	q := url.Values{}
	h.mu.Lock()
	known := h.cursors[r.Path]
	h.mu.Unlock()
	any := func() string { return pool[rng.IntN(len(pool))] }
	for _, p := range r.Parameters {
		value := any()
		switch {
		case rng.IntN(4) == 0:
		case (p.Name == "cursor" || p.Name == "resume") && len(known) > 0:
			value = known[rng.IntN(len(known))]
		case p.Name == "subject" || p.Name == "target":
			value = hub
		case p.Name == "source":
			value = []string{"app.test.a:subject.uri", "app.test.b:subject.uri"}[rng.IntN(2)]
		case p.Name == "path" || p.Name == "pathToOther":
			value = p.Example
		case p.Format == "at-uri":
			value = fmt.Sprintf("at://%s/app.test.a/%02d", storetest.DID(rng.IntN(5)), rng.IntN(14))
		case p.Format == "did" || p.Format == "at-identifier" && rng.IntN(2) == 0:
			value = storetest.DID(rng.IntN(5))
		case p.Format == "at-identifier":
			value = fmt.Sprintf("u%d.example.com", rng.IntN(5))
		case p.Format == "nsid":
			value = []string{"app.test.a", "app.test.b"}[rng.IntN(2)]
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

// answerMax is far more than the whole world takes in any form.
const answerMax = 16 << 20

// ask sends one request, and checks the answer.
func (h *hostile) ask(rng *rand.Rand, r openapi.Route, q url.Values) error {
	defer h.asked.Add(1)
	var before [len(h.turns)]int64
	for n := range h.turns {
		before[n] = h.turns[n].Load()
	}
	raw := q.Encode()
	path := strings.ReplaceAll(r.Path, "{collection}", url.PathEscape(cmp.Or(q.Get("collection"), "app.test.a")))
	if rng.IntN(20) == 0 { // not even a query
		raw = strings.ReplaceAll(raw, "%", []string{"%%", "%z", ";"}[rng.IntN(3)])
	}
	what := r.Path + "?" + raw
	req, err := http.NewRequest(http.MethodGet, h.public.URL+path+"?"+raw, nil)
	if err != nil {
		return nil // no client can send it
	}
	if rng.IntN(3) == 0 {
		req.Header.Set("If-None-Match", []string{"*", `W/"x"`, `"`, ",,,"}[rng.IntN(4)])
	}
	res, body, err := h.send(r, req)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if len(body) > answerMax {
		return fmt.Errorf("%s: an answer of more than %d bytes", what, len(body))
	}
	for n := range h.turns {
		hidden := before[n]%2 == 1 && before[n] == h.turns[n].Load()
		if hidden && strings.Contains(body, secret(n)) && !strings.Contains(raw, secret(n)) {
			return fmt.Errorf("%s shows an account that is hidden: %q", what, body)
		}
	}
	if err := h.judge(r, res, body); err != nil {
		return fmt.Errorf("%s: %d %w: %.1000q", what, res.StatusCode, err, body)
	}
	if res.StatusCode == http.StatusOK {
		h.remember(r, body)
	}
	return nil
}

// send sends a request, and reads the answer to its end: of a stream, some of its messages.
func (h *hostile) send(r openapi.Route, req *http.Request) (*http.Response, string, error) {
	if r.Media == "" {
		return h.stream(req)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, "", err
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, answerMax+1))
	if err = firstOf(err, res.Body.Close()); err != nil || res.StatusCode != http.StatusOK {
		return res, string(body), err
	}
	if res.Header.Get("Content-Type") != "application/vnd.apache.parquet" {
		return res, string(body), nil
	}
	rows, err := parquet.Read[struct {
		Rkey   string `parquet:"rkey"`
		Record string `parquet:"record,optional"`
	}](bytes.NewReader(body), int64(len(body)))
	return res, fmt.Sprintf("%+v", rows), err
}

// stream reads messages of a stream, until none comes for a while.
func (h *hostile) stream(req *http.Request) (*http.Response, string, error) {
	ws, res, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(req.URL.String(), "http"), nil)
	if err != nil {
		if res == nil {
			return nil, "", err
		}
		body, err := io.ReadAll(io.LimitReader(res.Body, answerMax+1))
		return res, string(body), err
	}
	defer ws.Close()
	var all strings.Builder
	for range 40 {
		if err := ws.SetReadDeadline(time.Now().Add(30 * time.Millisecond)); err != nil {
			return nil, "", err
		}
		kind, message, err := ws.ReadMessage()
		if websocket.IsCloseError(err, websocket.CloseInternalServerErr) {
			return nil, "", err
		}
		if err != nil {
			break // the stream has ended, or nothing is left
		}
		if kind == websocket.BinaryMessage {
			if message, err = h.decompress(message); err != nil {
				return nil, "", err
			}
		}
		_, _ = all.Write(message)
	}
	return res, all.String(), nil
}

// decompress decodes a message that is compressed with one of the dictionaries.
func (h *hostile) decompress(message []byte) (text []byte, err error) {
	for _, dict := range h.dicts {
		z, zerr := zstd.NewReader(nil, zstd.WithDecoderDicts(dict), zstd.WithDecoderConcurrency(1))
		if zerr != nil {
			return nil, zerr
		}
		text, err = z.DecodeAll(message, nil)
		if z.Close(); err == nil {
			return text, nil
		}
	}
	return nil, err
}

// judge returns what is wrong with the status or the form of an answer.
func (h *hostile) judge(r openapi.Route, res *http.Response, body string) error {
	var answer map[string]any
	switch {
	case res.StatusCode == http.StatusNotModified, res.StatusCode == http.StatusSwitchingProtocols:
	case res.StatusCode >= 500 && !(res.StatusCode == 502 && strings.Contains(body+res.Header.Get("Cistern-Error"), "UpstreamFailure")):
		return fmt.Errorf("fails, %s", res.Header.Get("Cistern-Error"))
	case res.StatusCode == 200 && (r.Fields == nil || res.Header.Get("Content-Type") == "application/x-ndjson"):
	case res.StatusCode == 200 && res.Request.URL.Path == "/": // a collection of two dots leads to the banner
	case res.StatusCode != 200 && r.Bare:
		if body != "" || res.Header.Get("Cistern-Error") == "" {
			return errors.New("is no error without a body")
		}
	case json.Unmarshal([]byte(body), &answer) != nil:
		return errors.New("is no object")
	case res.StatusCode != 200 && (answer["error"] == "" || answer["message"] == "" || len(body) > 5000):
		return errors.New("is no error")
	}
	return nil
}

// going is what an answer names to go on from.
var going = regexp.MustCompile(`"(?:cursor|resume)": ?"([^"]+)"`)

// remember keeps what an answer names to go on from.
func (h *hostile) remember(r openapi.Route, body string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range going.FindAllStringSubmatch(body, 5) {
		if len(h.cursors[r.Path]) < 50 {
			h.cursors[r.Path] = append(h.cursors[r.Path], m[1])
		}
	}
}

func firstOf(errs ...error) error {
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return errs[i]
	}
	return nil
}

// newHostile returns a world that is filled.
func newHostile(t *testing.T) *hostile {
	t.Helper()
	g := newRegistry()
	h := &hostile{world: newIndexed(t, api.Options{Names: g.resolver(t)}), cursors: map[string][]string{}}
	for n := range h.turns {
		h.fill(t, n)
		g.handles[fmt.Sprintf("u%d.example.com", n)] = storetest.DID(n)
	}
	for _, path := range []string{"/stream/dictionary", "/xrpc/network.bsky.jetstream.getZstdDictionary"} {
		var dict string
		if res := call(t, "GET", h.public.URL+path, "", nil, &dict); res.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d", path, res.StatusCode)
		}
		h.dicts = append(h.dicts, []byte(dict))
	}
	return h
}

// Whatever clients ask of any route while accounts write, are hidden, wiped, imported and shown again:
// no answer is a failure of the server, none has a record of an account that is hidden, and each ends.
func TestHostileRequests(t *testing.T) {
	t.Parallel()
	routes := openapi.Routes()
	for seed := range storetest.Seeds(2) {
		h := newHostile(t)
		pool := values(t)
		var clients errgroup.Group
		h.left.Store(4)
		for c := range int64(4) {
			rng := rand.New(rand.NewPCG(seed, uint64(c)))
			clients.Go(func() error {
				defer h.left.Add(-1)
				for i := range 8 * len(routes) {
					r := routes[(i+int(c)*len(routes)/4)%len(routes)] // each of them
					if err := h.ask(rng, r, h.request(rng, r, pool)); err != nil {
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
