package webhook_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cistern/api/deliver"
	"cistern/api/deliver/delivertest"
	"cistern/api/durable"
	"cistern/api/webhook"
	"cistern/gate"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
)

// inBubble runs a test with a world of a seed, whose daemon runs.
func inBubble(t *testing.T, wanted durable.WantedWebhook, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.hook.polite = true
		w.open()
		w.put(wanted)
		test(t, w)
		w.check()
		w.close()
		w.end()
	})
}

// answer has the endpoint answer a number of requests otherwise than with 204, and take none.
func (w *world) answer(with ...func(http.ResponseWriter, *http.Request)) {
	w.hook.mu.Lock()
	defer w.hook.mu.Unlock()
	w.hook.script = with
}

// came returns how many requests came.
func (w *world) came() int {
	synctest.Wait()
	w.hook.mu.Lock()
	defer w.hook.mu.Unlock()
	return w.hook.requests
}

// While the gate is shut no sender begins a request, and the request in flight is finished and
// counted. Then all events come.
func TestGate(t *testing.T) {
	inBubble(t, durable.WantedWebhook{Events: 5, Requests: 2}, func(t *testing.T, w *world) {
		w.hook.most = 1
		held := make(chan struct{})
		w.answer(func(rw http.ResponseWriter, _ *http.Request) {
			<-held
			rw.WriteHeader(http.StatusInternalServerError)
		})
		w.write(3, 1)
		if n := w.came(); n != 1 || w.gate.Working() != 1 {
			t.Errorf("%d requests, %d are counted", n, w.gate.Working())
		}
		w.gate.Shut(gate.Cause{Name: "phase"})
		w.write(20, 1)
		close(held)
		time.Sleep(time.Hour) // the wait after the failure is over
		if n := w.came(); n != 1 || w.gate.Working() != 0 {
			t.Errorf("at a shut gate: %d requests, %d are counted", n, w.gate.Working())
		}
		if st := w.status(); st.Outstanding+int(st.Lag) == 0 {
			t.Errorf("events were delivered at a shut gate: %+v", st)
		}
		w.gate.Open("phase")
		time.Sleep(time.Hour)
		if st := w.status(); w.came() < 2 || st.Outstanding != 0 || st.Lag != 0 {
			t.Errorf("after it: %d requests, %+v", w.came(), st)
		}
	})
}

// Requests that waited for a slot are not made to an endpoint that has failed meanwhile.
func TestFailsWhileOthersWait(t *testing.T) {
	inBubble(t, durable.WantedWebhook{Requests: 4}, func(t *testing.T, w *world) {
		release := w.made.HoldSlots()
		held := make(chan struct{})
		w.answer(func(rw http.ResponseWriter, _ *http.Request) {
			<-held
			rw.WriteHeader(http.StatusInternalServerError)
		})
		w.write(50, 20)
		if n := w.came(); n != 1 {
			t.Errorf("%d requests without slots", n)
		}
		close(held)
		synctest.Wait()
		release()
		time.Sleep(4 * time.Second)
		if n := w.came(); n != 1 {
			t.Errorf("%d requests before the wait after a failure is over", n)
		}
		time.Sleep(time.Hour)
		if st := w.status(); st.Outstanding != 0 || st.Lag != 0 || w.came() != 51 {
			t.Errorf("%d requests, %+v", w.came(), st)
		}
	})
}

// A request that failed comes again with the same id and the same events, and later ones wait.
func TestSameRequestAgain(t *testing.T) {
	inBubble(t, durable.WantedWebhook{Events: 5, Requests: 2}, func(t *testing.T, w *world) {
		w.hook.most = 1 // all events are of one account
		w.answer(status(500), status(302, "Location", "http://elsewhere.test"), status(404))
		w.write(3, 1)
		synctest.Wait()
		w.write(20, 1) // does not change what is sent again, though the other sender adds it
		time.Sleep(time.Hour)
		if st := w.status(); w.came() != 4+4 || st.Outstanding != 0 || st.Lag != 0 {
			t.Errorf("%d requests, %+v", w.came(), st)
		}
		for id, n := range w.hook.ids {
			if n != 1 && n != 4 {
				t.Errorf("%s came %d times", id, n)
			}
		}
	})
}

// The waits of an endpoint that fails go on where they were after a restart, and so does a webhook
// that is parked.
func TestStateSurvives(t *testing.T) {
	inBubble(t, durable.WantedWebhook{}, func(t *testing.T, w *world) {
		w.answer(status(500), status(500), status(410))
		w.write(3, 1)
		time.Sleep(30 * time.Second)
		st := *w.status().Webhook
		if st.State != "backing_off" || st.Attempts != 2 || st.LastError != "HTTP 500" || st.NextAttempt == nil || st.ParkedSince != nil {
			t.Fatalf("%+v", st)
		}
		w.restart(false)
		w.hook.restart()
		if again := *w.status().Webhook; again.Attempts != 2 || !again.NextAttempt.Equal(*st.NextAttempt) {
			t.Errorf("%+v after %+v", again, st)
		}
		time.Sleep(time.Until(*st.NextAttempt) - time.Second)
		if w.came() != 2 {
			t.Errorf("%d requests", w.came())
		}
		time.Sleep(2 * time.Second)
		if w.came() != 3 {
			t.Errorf("%d requests", w.came())
		}
		for range 2 {
			st = *w.status().Webhook
			if st.State != "parked" || st.Reason != "gone" || st.LastError != "HTTP 410" || st.ParkedSince == nil || st.NextAttempt != nil {
				t.Fatalf("%+v", st)
			}
			w.restart(true)
		}
		w.write(2, 1)
		time.Sleep(time.Hour)
		if w.came() != 3 {
			t.Error("a parked webhook was sent to")
		}
		w.resume()
		time.Sleep(time.Second)
		if st := w.status(); st.Lag != 0 || st.Outstanding != 0 || st.Webhook.State != "idle" {
			t.Errorf("%+v %+v", st, st.Webhook)
		}
		log := w.log.String()
		if strings.Count(log, "webhook fails") != 1 || strings.Count(log, "webhook is parked") != 1 || !strings.Contains(log, "reason=gone") {
			t.Error(log)
		}
	})
}

// A webhook that fails again and again is logged now and then, and that it recovers too.
func TestLogsSeldom(t *testing.T) {
	inBubble(t, durable.WantedWebhook{}, func(t *testing.T, w *world) {
		for range 100 {
			w.answer(status(500))
			w.write(1, 1)
			time.Sleep(10 * time.Second) // 17 minutes
		}
		log := w.log.String()
		if fails, good := strings.Count(log, "webhook fails"), strings.Count(log, "takes events again"); fails != 2 || good != 2 {
			t.Errorf("%d failures and %d recoveries are logged", fails, good)
		}
	})
}

// When the daemon stops, a request in flight is finished and settled, or cut and made again.
func TestDrain(t *testing.T) {
	inBubble(t, durable.WantedWebhook{}, func(t *testing.T, w *world) {
		late := func(after time.Duration) func(http.ResponseWriter, *http.Request) {
			return func(rw http.ResponseWriter, r *http.Request) {
				select {
				case <-time.After(after):
				case <-r.Context().Done():
				}
				rw.WriteHeader(204)
			}
		}
		w.answer(late(3 * time.Second))
		w.write(1, 1)
		synctest.Wait()
		if st := w.status(); st.Webhook.State != "sending" {
			t.Errorf("%+v", st.Webhook)
		}
		w.hook.mu.Lock()
		w.hook.taken[1], w.hook.final[1] = 1, true // by the answer that is to come
		w.hook.mu.Unlock()
		start := time.Now()
		w.restart(false) // which checks that event 1 is settled
		if d := time.Since(start); d != 3*time.Second {
			t.Errorf("it took %s to finish a request", d)
		}
		w.answer(late(time.Minute))
		w.write(1, 1)
		synctest.Wait()
		start = time.Now()
		w.restart(false)
		if d := time.Since(start); d != 5*time.Second {
			t.Errorf("it took %s to cut a request", d)
		}
		time.Sleep(time.Second)
		if st := w.status(); w.came() != 3 || st.Outstanding != 0 || st.Webhook.Attempts != 0 {
			t.Errorf("%d requests, %+v", w.came(), st.Webhook)
		}
	})
}

// A webhook follows a replay of its subscription by itself, unless it is parked, and its state stays.
func TestReplayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log := &scripted{statuses: []int{204, 204, 204, 204, 410}}, delivertest.NewLog(delivertest.Identities(2)...)
		subs := served(t, log, webhook.Options{Transport: s}, durable.Wanted{Start: durable.Start{Oldest: true},
			Webhook: &durable.WantedWebhook{URL: hookURL, Requests: 1}})
		one, two := "["+identity(1)+"]", "["+identity(2)+"]"
		s.want(t, time.Second, one, two)
		replay := func() durable.Status {
			t.Helper()
			st, err := subs.Replay(t.Context(), "a", durable.Start{Oldest: true})
			if err != nil {
				t.Fatal(err)
			}
			return st
		}
		replay()
		s.want(t, time.Second, one, two)
		replay()
		s.want(t, time.Second, one)
		if st := replay(); st.Webhook.State != "parked" || st.Webhook.Reason != "gone" || st.Next != 1 {
			t.Errorf("%+v", st.Webhook)
		}
		s.want(t, time.Hour)
		if _, err := subs.Resume("a"); err != nil {
			t.Fatal(err)
		}
		s.want(t, time.Second, one, two)
	})
}

// A subscription that is dropped, or whose webhook is removed, gets no requests any more, and can
// have connections then.
func TestRemoved(t *testing.T) {
	inBubble(t, durable.WantedWebhook{}, func(t *testing.T, w *world) {
		sub, err := w.subs.Find("a")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sub.Attach(); err == nil || !strings.Contains(err.Error(), "Conflict: subscription a has a webhook") {
			t.Error(err)
		}
		if _, _, err := w.subs.Put(t.Context(), "a", durable.Wanted{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		w.write(1, 1)
		time.Sleep(time.Minute)
		if st := w.status(); w.came() != 0 || st.Webhook != nil || st.Lag != 1 {
			t.Errorf("%d requests, %+v", w.came(), st)
		}
		m, err := sub.Attach()
		if err != nil {
			t.Fatal(err)
		}
		wanted := durable.Wanted{Webhook: &durable.WantedWebhook{URL: hookURL}}
		if _, _, err := w.subs.Put(t.Context(), "a", wanted); err == nil || !strings.Contains(err.Error(), "Conflict: subscription a has 1 open connections") {
			t.Error(err)
		}
		m.Detach()
		w.put(durable.WantedWebhook{})
		time.Sleep(time.Second)
		if w.came() != 1 {
			t.Errorf("%d requests", w.came())
		}
		w.put(durable.WantedWebhook{Secrets: []string{"whsec_" + strings.Repeat("A", 40)}})
		if st := w.status(); st.Redelivered != 0 || len(st.Connections) != 0 || st.Share != durable.Exclusive {
			t.Errorf("%+v", st)
		}
		if err := w.subs.Drop("a"); err != nil {
			t.Fatal(err)
		}
		w.write(1, 1)
		time.Sleep(time.Minute)
		if w.came() != 1 {
			t.Errorf("%d requests", w.came())
		}
		w.put(durable.WantedWebhook{})
	})
}

// scripted answers requests with some statuses, and then with 204. It keeps the bodies.
type scripted struct {
	mu       sync.Mutex
	statuses []int
	bodies   []string
}

func (s *scripted) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bodies = append(s.bodies, string(body))
	code := 204
	if len(s.statuses) > 0 {
		code, s.statuses = s.statuses[0], s.statuses[1:]
	}
	return &http.Response{StatusCode: code, Body: http.NoBody, Request: r}, err
}

// want waits for some bodies, and compares their data.
func (s *scripted) want(t *testing.T, after time.Duration, data ...string) {
	t.Helper()
	time.Sleep(after)
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	var got []string
	for _, body := range s.bodies {
		_, events, _ := strings.Cut(body, `"data":`)
		got = append(got, strings.TrimSuffix(events, "}"))
	}
	if d := cmp.Diff(data, got); d != "" {
		t.Error(d)
	}
	s.bodies = nil
}

// served runs webhooks of a log in memory until the test ends.
func served(t *testing.T, log *delivertest.Log, o webhook.Options, w durable.Wanted) *durable.Registry {
	t.Helper()
	s := storetest.Open(t, store.Options{})
	subs, err := durable.New(durable.Options{Store: s, Log: log, CheckURL: webhook.CheckURL(true)})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := subs.Put(t.Context(), "a", w); err != nil {
		t.Fatal(err)
	}
	o.Subscriptions, o.Epoch = subs, "epoch1"
	if o.Delivery, err = deliver.New(deliver.Options{Log: log, Epoch: "epoch1", Subscriptions: subs,
		Refusal: func(err error) (string, string) { return "error", err.Error() }}); err != nil {
		t.Fatal(err)
	}
	r, err := webhook.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return r.Run(ctx) })
	t.Cleanup(func() {
		stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		b := s.NewBatch()
		b.DropSubscription("a") // its position is beyond the log of the store
		if err := b.CommitSync(); err != nil {
			t.Error(err)
		}
	})
	return subs
}

func identity(id int) string {
	return fmt.Sprintf(`{"id":%d,"type":"identity","identity":{"did":"did:plc:%d","handle":"a.test"}}`, id, id-1)
}

// What the log has lost while an endpoint failed comes as a gap in an array of its own, and is
// acknowledged like an event.
func TestGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log := &scripted{statuses: []int{500, 500, 200, 500}}, delivertest.NewLog(delivertest.Identities(9)...)
		subs := served(t, log, webhook.Options{Transport: s}, durable.Wanted{Start: durable.Start{ID: 3},
			Webhook: &durable.WantedWebhook{URL: hookURL, Events: 2, Requests: 1}})
		three := "[" + identity(3) + "," + identity(4) + "]"
		s.want(t, 20*time.Second, three, three)
		log.Prune(8)
		gap := `[{"id":3,"type":"gap","from":3,"to":7,"snapshot":"/stream?snapshot=true"}]`
		s.want(t, time.Hour, gap, "["+identity(8)+","+identity(9)+"]", "["+identity(8)+","+identity(9)+"]")
		if st, err := subs.Status("a"); err != nil || st.Outstanding != 0 || st.Lag != 0 {
			t.Errorf("%+v, %v", st, err)
		}
	})
}

// What is hidden while its request waits is not sent.
func TestHiddenWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log := &scripted{statuses: []int{503}}, delivertest.NewLog(delivertest.Identities(3)...)
		served(t, log, webhook.Options{Transport: s}, durable.Wanted{Start: durable.Start{Oldest: true},
			Webhook: &durable.WantedWebhook{URL: hookURL, Events: 2, Requests: 1}})
		s.want(t, time.Second, "["+identity(1)+","+identity(2)+"]")
		log.Hide(1)
		s.want(t, time.Minute, "["+identity(2)+"]", "["+identity(3)+"]")
	})
}

// An endpoint that fails at the last attempt is parked.
func TestLastAttempt(t *testing.T) {
	inBubble(t, durable.WantedWebhook{}, func(t *testing.T, w *world) {
		b := w.s.NewBatch()
		b.PutWebhookState("a", store.WebhookState{Failed: 9, Since: time.Now().UnixMilli(), Next: time.Now().UnixMilli(), Error: "HTTP 404"})
		if err := b.CommitSync(); err != nil {
			t.Fatal(err)
		}
		w.answer(status(500))
		w.restart(false)
		w.write(3, 3)
		time.Sleep(time.Minute)
		st := *w.status().Webhook
		if w.came() != 1 || st.State != "parked" || st.Reason != "failing" || st.Attempts != 10 || st.LastError != "HTTP 500" {
			t.Errorf("%d requests, %+v", w.came(), st)
		}
		w.put(durable.WantedWebhook{}) // has it begin anew
		time.Sleep(time.Second)
		if st := w.status(); st.Webhook.State != "idle" || st.Outstanding != 0 || st.Webhook.Secrets != 1 {
			t.Errorf("%+v, %+v", st, st.Webhook)
		}
	})
}

// Only public addresses are connected to, whatever a name is looked up as, and the state says why.
func TestPrivateAddress(t *testing.T) {
	t.Parallel()
	came := make(chan struct{}, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { came <- struct{}{} }))
	defer srv.Close()
	_, port, _ := strings.Cut(srv.Listener.Addr().String(), ":")
	url := "http://localhost:" + port + "/?token=hush" // a name, as one that is rebound
	wanted := durable.Wanted{Start: durable.Start{Oldest: true}, Webhook: &durable.WantedWebhook{URL: url}}
	subs := served(t, delivertest.NewLog(delivertest.Identities(1)...), webhook.Options{}, wanted)
	for {
		st, err := subs.Status("a")
		if err != nil {
			t.Fatal(err)
		}
		if text := st.Webhook.LastError; text != "" {
			if !strings.Contains(text, "not public") && !strings.Contains(text, "loopback") || strings.Contains(text, "hush") {
				t.Error(text)
			}
			break
		}
		select {
		case <-came:
			t.Fatal("a request came to a private address")
		case <-time.After(time.Millisecond):
		}
	}
	served(t, delivertest.NewLog(delivertest.Identities(1)...), webhook.Options{AllowPrivate: true}, wanted)
	<-came
}

// TestCheckURL: what is no URL of a webhook.
func TestCheckURL(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"https://a.test/in?token=1": "", "https://a.test:8443": "", "https://8.8.8.8/": "", "https://[2606:4700::1]:443/": "",
		"http://a.test/": "is not https", "ftp://a.test/": "is not https", "a.test": "is not https", "": "is not https",
		"https://u:p@a.test/": "user name", "https://a.test/#x": "fragment", "https:///in": "host", "https://a b/": "parse",
		"https://127.0.0.1/": "loopback", "https://[::1]:80/": "loopback", "https://10.0.0.1:80/": "private", "https://127.1/": "number",
		"https://0x7f000001/": "number", "https://[::ffff:10.0.0.1]/": "private", "https://a.test/" + strings.Repeat("a", 3000): "2048",
		"https://a.test:99999/": "port", "https://*.test/": "letters",
	} {
		err := webhook.CheckURL(false)(url)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %v, want %q", url, err, want)
		}
	}
	for _, url := range []string{"http://127.0.0.1:80/in", "https://10.0.0.1", "http://[::1]:80"} {
		if err := webhook.CheckURL(true)(url); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
	if webhook.CheckURL(true)("ftp://a.test") == nil {
		t.Error("ftp is taken")
	}
}

// TestBody: the body and the id of requests, which receivers may rely on.
func TestBody(t *testing.T) {
	t.Parallel()
	event := func(id uint64) deliver.Message {
		return deliver.Message{ID: id, Time: 1_700_000_000_000_000 + int64(id), Body: fmt.Appendf(nil, `{"id":%d}`, id)}
	}
	gap := deliver.Message{ID: 4, GapTo: 5, Body: []byte(`{"id":4}`)}
	for want, messages := range map[string][]deliver.Message{
		`{"type":"events","timestamp":"2023-11-14T22:13:20.000002Z","data":[{"id":1},{"id":2}]}`: {event(1), event(2)},
		`{"type":"events","timestamp":"2026-01-02T03:04:05.000000Z","data":[{"id":4}]}`:          {gap},
	} {
		if got := webhook.BodyOf(messages, epoch); string(got) != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	ids := map[string]bool{}
	for _, id := range []string{
		webhook.IDOf("a", "e", []deliver.Message{event(1)}), webhook.IDOf("a", "e", []deliver.Message{event(1), event(2)}),
		webhook.IDOf("a", "e", []deliver.Message{event(1), event(3)}), webhook.IDOf("b", "e", []deliver.Message{event(1)}),
		webhook.IDOf("ae", "", []deliver.Message{event(1)}), webhook.IDOf("a", "f", []deliver.Message{event(1)}),
	} {
		if ids[id] || strings.Contains(id, ".") || !strings.HasPrefix(id, "msg_") || len(id) != 36 {
			t.Errorf("id %q", id)
		}
		ids[id] = true
	}
	if !ids[webhook.IDOf("a", "e", []deliver.Message{event(1)})] {
		t.Error("the same events have other ids")
	}
}

// FuzzJudge: whatever an endpoint answers, it says nothing that a limit does not bound.
func FuzzJudge(f *testing.F) {
	f.Add(429, "120", "")
	f.Add(503, "Wed, 21 Oct 2026 07:28:00 GMT", "")
	f.Add(502, "-1", "99999999999999999999")
	f.Add(200, "7", "7")
	f.Fuzz(func(t *testing.T, code int, after, reset string) {
		class, verdict, wait := webhook.Judge(code, http.Header{"Retry-After": {after}, "Ratelimit-Reset": {reset}}, epoch)
		if class == "" || wait < 0 || wait > time.Hour || wait != 0 && verdict != webhook.SlowDown ||
			(verdict == webhook.Succeeded) != (code >= 200 && code < 300) {
			t.Errorf("%d, %q: %s, %v, %s", code, after, class, verdict, wait)
		}
	})
}
