package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cistern/alert"
	"cistern/api/durable"
	"cistern/backfill"
	"cistern/condition"
	"cistern/ingest/simnet"
	"cistern/maintain"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const alertSecret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"

// pager is an endpoint of alerts.
type pager struct {
	*httptest.Server
	mu  sync.Mutex
	got []string // mu guards
}

func newPager(t *testing.T) *pager {
	verifier, err := standardwebhooks.NewWebhook(alertSecret)
	if err != nil {
		t.Fatal(err)
	}
	p := &pager{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var m struct {
			Type string
			Data struct{ Kind, Subject, Error string }
		}
		if err = errors.Join(err, verifier.Verify(body, r.Header), json.Unmarshal(body, &m)); err != nil {
			t.Errorf("%s: %v", body, err)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.got = append(p.got, m.Type+" "+m.Data.Kind+" "+m.Data.Error)
	}))
	t.Cleanup(p.Close)
	return p
}

// TestAlerts: under a running daemon a disk that is short alerts at once and a firehose that is down
// after its grace, on every way that alerts are shown, and each turn is one signed message.
func TestAlerts(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 14, Repos: 3, Hosts: 1})
	x, p := newTestIndex(t), newPager(t)
	m := &machine{free: 500e6, now: time.Now(), stalled: map[condition.Resource]float64{}}
	tune := m.tune()
	tune.alerts = func(o *alert.Options) { o.Every = 10 * time.Millisecond }
	dead := "ws://" + freeAddress(t)
	args := []string{"run", "--data", x.dir, "--listen", x.public, "--admin", x.admin, "--plc", n.PLC(), "--allow-private", "--log-level", "error",
		"--disk-reserve", "100MB", "--pds", dead, "--relay", n.Relay(), "--alert-after", "source=0", "--alert-webhook", p.URL, "--alert-webhook-secret", alertSecret}
	stop := x.startTuned(t, args, tune)
	type row struct {
		Kind, Subject, State, Since, Error string
		Attempts                           int
	}
	rows := func() (all []row) {
		err := x.call(t.Context(), "GET", "/alerts?state=alert", nil, func(b []byte) error {
			for line := range strings.Lines(string(b)) {
				var r row
				if err := json.Unmarshal([]byte(line), &r); err != nil {
					return fmt.Errorf("%s: %w", line, err)
				}
				all = append(all, r)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	await := func(what string, kinds ...string) (all []row) {
		t.Helper()
		x.await(t, what, func() error {
			var got []string
			all = rows()
			for _, r := range all {
				got = append(got, r.Kind)
			}
			if !slices.Equal(got, kinds) {
				return fmt.Errorf("%v", all)
			}
			return nil
		})
		return all
	}
	all := await("the source to alert", "source")
	if s := all[0]; s.Subject != dead || s.Attempts < 3 || !strings.Contains(s.Error, "dial: ") || s.Since == "" {
		t.Errorf("%+v", s)
	}
	m.set(func() { m.free = 50e6 })
	all = await("the disk to alert", "disk", "source")
	if s := all[0]; s.Subject != x.dir || !strings.Contains(s.Error, "48 MiB free, 95 MiB needed") {
		t.Errorf("%+v", s)
	}
	out, err := x.command(t.Context(), nil, "alerts")
	if lines := strings.Split(out, "\n"); err != nil || len(lines) != 4 || !strings.HasPrefix(lines[1], "disk") || !strings.HasPrefix(lines[2], "source") {
		t.Errorf("%v\n%s", err, out)
	}
	x.await(t, "metrics", func() error {
		var text string
		err := x.call(t.Context(), "GET", "/metrics", nil, func(b []byte) error { text = string(b); return nil })
		for _, want := range []string{`cistern_alert_subjects{kind="disk",state="alert"} 1`, `cistern_alert_subjects{kind="host",state="grace"} 0`, `cistern_alert_messages_total{result="sent"} 2`} {
			if !strings.Contains(text, want) {
				err = errors.Join(err, fmt.Errorf("/metrics lacks %s", want))
			}
		}
		return err
	})
	m.set(func() { m.free = 500e6 })
	await("the disk to be ok", "source")
	x.await(t, "three messages", func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.got) == 3 && strings.HasPrefix(p.got[0], "alert.alert source ") && strings.HasPrefix(p.got[1], "alert.alert disk ") && strings.HasPrefix(p.got[2], "alert.ok disk ") {
			return nil
		}
		return fmt.Errorf("%q", p.got)
	})
	for path, want := range map[string]string{"/alerts?state=ok": "state", "/alerts?limit=0": "limit"} {
		if status, answer := x.send(t, "GET", path, ""); status != 400 || !strings.Contains(answer, want) {
			t.Errorf("%s: %d %s", path, status, answer)
		}
	}
	if status, answer := x.send(t, "GET", "/alerts?limit=1&cursor=disk+z", ""); status != 200 || !strings.Contains(answer, `"source"`) {
		t.Errorf("%d %s", status, answer)
	}
	stop()
}

// TestFailures says which states of webhooks, operations and conditions are failures, and which of
// them are final.
func TestFailures(t *testing.T) {
	t.Parallel()
	parked := time.Now()
	hook := func(name string, w *durable.WebhookStatus) durable.Status {
		return durable.Status{Name: name, Webhook: w}
	}
	got := slices.Concat(
		failingWebhooks([]durable.Status{hook("none", nil), hook("fine", &durable.WebhookStatus{}), hook("slow", &durable.WebhookStatus{Attempts: 2, LastError: "HTTP 500"}),
			hook("gone", &durable.WebhookStatus{Attempts: 1, ParkedSince: &parked, Reason: "gone"})}),
		failingOperations(maintain.View{Operations: []maintain.Status{{Name: "gc"}, {Name: "prune", Failures: 4, Error: "no"}}}),
		failingConditions([]condition.Status{{Name: "disk", State: condition.Waiting, Reason: "short"}, {Name: "io", State: condition.Unknown, Error: "no file"},
			{Name: "mount", State: condition.Waiting, Reason: "elsewhere"}, {Name: "cpu", State: condition.OK}}))
	want := []alert.Failure{
		{Kind: alert.Subscription, Name: "slow", Attempts: 2, Error: "HTTP 500"},
		{Kind: alert.Subscription, Name: "gone", Attempts: 1, Error: "its webhook is parked: gone", Final: true},
		{Kind: alert.Operation, Name: "prune", Attempts: 4, Error: "no"},
		{Kind: alert.Condition, Name: "io", Error: "no file"},
		{Kind: alert.Condition, Name: "mount", Error: "elsewhere", Final: true},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
}

// TestHostsAlertTogether: a host that is down is one subject if the options name it, and the others
// count only by the share of repositories that they keep from being fetched. Both alerts end when the
// hosts are back.
func TestHostsAlertTogether(t *testing.T) {
	t.Parallel()
	faults := maps.Clone(outages)
	faults["reset"] = simnet.Fault{Kind: simnet.Reset}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hostsAlert(t, fault)
		})
	}
}

func hostsAlert(t *testing.T, fault simnet.Fault) {
	n := startNetwork(t, simnet.Options{Seed: 15, Repos: 30, Hosts: 3})
	x := newTestIndex(t)
	tune := hasty()
	tune.alerts = func(o *alert.Options) { o.Every = 10 * time.Millisecond }
	backfillHasty := tune.backfill
	tune.backfill = func(o *backfill.Options) { backfillHasty(o); o.IdleTimeout = 200 * time.Millisecond }
	named := n.Hosts()[0]
	stop := x.startTuned(t, x.args(n, "--mode", "full", "--relay", n.Relay(), "--crawl", "repos::"+named.URL(), "--alert-after", "hosts=0", "--alert-after", "host=0"), tune)
	x.settle(t, map[string]int64{"synced": active(n.Accounts())})
	if _, answer := x.send(t, "GET", "/alerts", ""); answer != "[]" {
		t.Errorf("all is well, and %s", answer)
	}
	var back []func()
	for _, h := range n.Hosts() {
		if fault.Kind == simnet.Reset {
			back = append(back, h.Inject(fault).Clear)
			continue
		}
		back = append(back, breakHost(t, h, fault))
	}
	if err := x.call(t.Context(), "POST", "/repos/resync", n.DIDs(), nil); err != nil {
		t.Fatal(err)
	}
	x.awaitAlerts(t, "the hosts to alert together", `"kind":"hosts","subject":"all","state":"alert"`, " of 30 repositories", `"kind":"host",`)
	if _, answer := x.send(t, "GET", "/alerts", ""); strings.Count(answer, `"kind"`) != 2 {
		t.Errorf("each host is an alert: %s", answer)
	}
	for _, b := range back {
		b()
	}
	x.awaitAlerts(t, "the end of the alerts")
	stop()
}
