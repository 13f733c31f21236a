package webhook_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cistern/api/deliver"
	"cistern/api/durable"
	"cistern/api/webhook"
	"cistern/gate"
	"cistern/store"
	"cistern/store/storetest"

	"golang.org/x/sync/errgroup"
)

const hookURL = "http://hook.test/in?token=hush"

// world is a store with a subscription that has a webhook, and its endpoint, in a synctest bubble.
type world struct {
	t    *testing.T
	rng  *rand.Rand
	fs   *storetest.CrashFS
	s    *store.Store
	subs *durable.Registry
	hook *hostile
	net  *pipes
	log  syncBuffer
	gate gate.Gate
	made *webhook.Runner // of this life

	server http.Server
	served errgroup.Group
	run    errgroup.Group
	stop   context.CancelFunc
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 1)), fs: storetest.NewCrashFS(), hook: newHostile(seed), net: newPipes()}
	w.server.Handler = w.hook
	w.served.Go(func() error { return w.server.Serve(w.net) })
	return w
}

// open begins a life of the daemon.
func (w *world) open() {
	w.t.Helper()
	var err error
	if w.s, err = store.Open(store.Options{FS: w.fs, Dir: "db"}); err != nil {
		w.t.Fatal(err)
	}
	logger := slog.New(slog.NewTextHandler(&w.log, nil))
	if w.subs, err = durable.New(durable.Options{Store: w.s, Log: w.s, WindowEvents: 1 + w.rng.IntN(60),
		CheckURL: webhook.CheckURL(true), Logger: logger}); err != nil {
		w.t.Fatal(err)
	}
	d, err := deliver.New(deliver.Options{Log: w.s, Records: w.s, Epoch: w.s.Epoch(), Subscriptions: w.subs, PageEvents: 1 + w.rng.IntN(40),
		Refusal: func(err error) (string, string) { return "error", err.Error() }})
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := webhook.New(webhook.Options{Subscriptions: w.subs, Delivery: d, Epoch: w.s.Epoch(), UserAgent: "cistern/test", Logger: logger, Gate: &w.gate,
		Transport: &http.Transport{MaxIdleConnsPerHost: 16, DialContext: func(context.Context, string, string) (net.Conn, error) { return w.net.dial() }}})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(w.t.Context())
	w.run = errgroup.Group{}
	w.stop, w.made = stop, r
	w.run.Go(func() error { return r.Run(ctx) })
}

// close ends a life of the daemon.
func (w *world) close() {
	w.t.Helper()
	w.stop()
	if err := w.run.Wait(); err != nil {
		w.t.Error(err)
	}
	storetest.Check(w.t, w.s)
	if err := w.s.Close(); err != nil {
		w.t.Error(err)
	}
}

// end ends the endpoint.
func (w *world) end() {
	_ = w.server.Close()
	_ = w.served.Wait() // closed
}

func (w *world) put(h durable.WantedWebhook) durable.Status {
	w.t.Helper()
	h.URL = hookURL
	w.hook.mu.Lock()
	defer w.hook.mu.Unlock()
	st, _, err := w.subs.Put(w.t.Context(), "a", durable.Wanted{Start: durable.Start{Oldest: true}, Webhook: &h})
	if err != nil {
		w.t.Fatal(err)
	}
	if st.Webhook.NewSecret != "" {
		w.hook.secrets = []string{st.Webhook.NewSecret}
	}
	w.hook.restart()
	return st
}

func (w *world) status() durable.Status {
	w.t.Helper()
	st, err := w.subs.Status("a")
	if err != nil {
		w.t.Fatal(err)
	}
	return st
}

// write adds events of some accounts.
func (w *world) write(n, accounts int) {
	w.t.Helper()
	b := w.s.NewBatch()
	w.hook.mu.Lock() // the endpoint must not get an event before its account is known
	defer w.hook.mu.Unlock()
	for range n {
		r := store.Repo{DID: storetest.DID(w.rng.IntN(accounts)), Handle: "a.test"}
		b.Identity(&r)
		w.hook.dids = append(w.hook.dids, r.DID)
	}
	if err := b.CommitSync(); err != nil {
		w.t.Fatal(err)
	}
}

// check fails the test if the endpoint found something wrong.
func (w *world) check() {
	w.t.Helper()
	w.hook.mu.Lock()
	defer w.hook.mu.Unlock()
	for i, p := range w.hook.problems {
		if i == 10 {
			break
		}
		w.t.Error(p)
	}
	w.hook.problems = nil
	for _, secret := range append(w.hook.secrets, "hush") {
		if strings.Contains(w.log.String(), strings.TrimPrefix(secret, "whsec_")) {
			w.t.Errorf("the log has a secret: %s", w.log.String())
		}
	}
	if st, err := json.Marshal(w.status()); err != nil || bytes.Contains(st, []byte("whsec")) {
		w.t.Errorf("%s, %v", st, err)
	}
}

// TestHostileEndpoint: an endpoint answers in all ways that there are while the daemon crashes, is
// stopped, and its operator rotates secrets and resumes. Every event arrives, those of an account in
// order, and none that was acknowledged on disk comes again.
func TestHostileEndpoint(t *testing.T) {
	for seed := range storetest.Seeds(8) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, seed)
				requests := 1 + w.rng.IntN(16)
				w.hook.most = requests
				wanted := durable.WantedWebhook{Events: 1 + w.rng.IntN(100), Requests: requests}
				w.open()
				w.put(wanted)
				for range 3 {
					w.live(wanted)
					w.restart(w.rng.IntN(3) > 0)
					if t.Failed() {
						break
					}
				}
				w.hook.mu.Lock()
				w.hook.polite = true
				w.hook.mu.Unlock()
				w.drained()
				w.check()
				w.close()
				w.end()
				t.Logf("%d events, %d requests", len(w.hook.dids), w.hook.requests)
			})
		})
	}
}

// live is some hours.
func (w *world) live(wanted durable.WantedWebhook) {
	for range 30 {
		w.write(1+w.rng.IntN(30), 1+w.rng.IntN(12))
		time.Sleep(time.Duration(w.rng.Int64N(int64(40 * time.Second))))
		switch w.rng.IntN(12) {
		case 0:
			w.rotate(wanted)
		case 1:
			w.put(wanted)
		}
		if w.status().Webhook.State == "parked" {
			w.resume()
		}
		if w.check(); w.t.Failed() {
			return
		}
	}
}

func (w *world) resume() {
	w.t.Helper()
	w.hook.mu.Lock()
	defer w.hook.mu.Unlock()
	st, err := w.subs.Resume("a")
	if err != nil || st.Webhook.Attempts != 0 || st.Webhook.LastError != "" {
		w.t.Errorf("%+v, %v", st.Webhook, err)
	}
	w.hook.restart()
}

// rotate puts another secret beside the present one, waits until it is in use, and puts it alone.
func (w *world) rotate(wanted durable.WantedWebhook) {
	w.t.Helper()
	key := "whsec_" + strings.Repeat(string(rune('A'+w.rng.IntN(26))), 40)
	for _, secrets := range [][]string{{key, w.hook.secrets[0]}, {key}} {
		w.hook.mu.Lock()
		w.hook.secrets = nil // requests in flight have the former ones
		w.hook.mu.Unlock()
		wanted.Secrets = secrets
		if st := w.put(wanted); st.Webhook.Secrets != len(secrets) || st.Webhook.NewSecret != "" {
			w.t.Errorf("%+v", st.Webhook)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		w.hook.mu.Lock()
		w.hook.secrets = secrets
		w.hook.mu.Unlock()
	}
}

// restart ends the life of the daemon, and begins another.
func (w *world) restart(crash bool) {
	w.t.Helper()
	fs := w.fs
	if crash {
		fs = w.fs.Clone(w.rng, w.rng.IntN(101))
		w.hook.mu.Lock()
		w.hook.problems = nil
		w.hook.mu.Unlock()
	}
	w.close()
	w.fs = fs
	s, err := store.Open(store.Options{FS: fs, Dir: "db"})
	if err != nil {
		w.t.Fatal(err)
	}
	p, err := s.SubscriptionPosition("a")
	if err != nil {
		w.t.Fatal(err)
	}
	w.hook.mu.Lock()
	for id := uint64(1); id <= uint64(len(w.hook.dids)); id++ {
		settled := id < p.Next && !slices.Contains(p.Outstanding, id)
		switch {
		case settled && w.hook.taken[id] == 0:
			w.t.Errorf("event %d is lost: %+v", id, p)
		case !settled && !crash && w.hook.final[id]:
			w.t.Errorf("event %d was taken before a clean end, and is not settled", id)
		}
		w.hook.final[id] = settled
	}
	w.hook.restart() // a crash may forget it
	w.hook.failed = ""
	w.hook.mu.Unlock()
	if err := s.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.open()
}

// drained waits until everything was taken.
func (w *world) drained() {
	w.t.Helper()
	for range 24 * 60 {
		if w.status().Webhook.State == "parked" {
			w.resume()
		}
		if st := w.status(); st.Lag == 0 && st.Outstanding == 0 {
			break
		}
		time.Sleep(time.Minute)
	}
	synctest.Wait()
	if st := w.status(); st.Lag != 0 || st.Outstanding != 0 || st.Webhook.State != "idle" {
		w.t.Errorf("not drained: %+v, %+v", st, st.Webhook)
	}
	w.hook.mu.Lock()
	defer w.hook.mu.Unlock()
	for id := range w.hook.dids {
		if w.hook.taken[uint64(id+1)] == 0 {
			w.t.Errorf("event %d never came", id+1)
			return
		}
	}
}

// syncBuffer is a buffer for a logger.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
