package statuspage_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"cistern/alert"
	"cistern/api/statuspage"
	"cistern/chart"
	"cistern/condition"

	"github.com/google/go-cmp/cmp"
)

var now = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

// shrinking is a recorder of which the series pending falls by ten a step, and a series that is not
// public grows.
func shrinking(t *testing.T, steps int) *chart.Recorder {
	t.Helper()
	at, pending := now.Add(-time.Duration(steps-1)*10*time.Second), 1000.0
	r, err := chart.New(chart.Options{Series: []chart.Series{{Name: "pending"}, {Name: "disk_free"}, {Name: "live"}},
		Read: func() []float64 { return []float64{pending, 77_777_777, 3} }, Now: func() time.Time { return at }})
	if err != nil {
		t.Fatal(err)
	}
	for range steps {
		r.Look()
		at, pending = at.Add(10*time.Second), pending-10
	}
	return r
}

// TestOf: figures become public with their counts and times, worst first.
func TestOf(t *testing.T) {
	t.Parallel()
	hour := now.Add(-time.Hour)
	s := statuspage.Of(statuspage.Facts{Now: now, Version: "v1",
		Counts: map[string]int64{"repos": 110, "synced": 40, "pending": 50, "resync": 7, "draining": 3, "gone": 4, "idle": 6,
			"error_generic": 5, "error_transport": 2, "records": 900, "syncing": 8},
		Sources: []statuspage.Following{{URL: "wss://near.example", Running: true, Lag: time.Second},
			{URL: "wss://far.example", Running: true, Lag: time.Minute}, {URL: "wss://down.example", PDS: true, Failing: true}, {URL: "wss://new.example"}},
		Alerts: []alert.Subject{{Kind: alert.Source, Now: alert.Alert, Since: now.Add(-time.Minute)}, {Kind: alert.Source, Now: alert.Alert, Since: hour},
			{Kind: alert.Host, Now: alert.Grace, Since: now}},
		Conditions: []condition.Status{{Name: "disk", State: condition.Waiting, Since: hour}, {Name: "hours", State: condition.OK}},
		Paused:     []string{"crawler", "backfill", "a name"},
		Charts:     shrinking(t, 20),
	})
	want := statuspage.Status{Time: "2026-12-01T12:00:00Z", Version: "v1", Records: 900,
		Verdict:      statuspage.Verdict{Level: "bad", Text: "2 alerts, backfill and crawler paused"},
		Repositories: statuspage.Repositories{Total: 110, Synced: 40, Pending: 50, Draining: 3, Resync: 7, Gone: 4, Idle: 6, Unreachable: 2, Refused: 5},
		Problems: []statuspage.Problem{{Name: "firehose", State: "alert", Count: 2, Since: "2026-12-01T11:00:00Z"},
			{Name: "hosts", State: "failing", Count: 1, Since: "2026-12-01T12:00:00Z"}, {Name: "storage", State: "waiting", Count: 1, Since: "2026-12-01T11:00:00Z"}},
		// 50 that wait, at one a second
		Backfill: statuspage.Backfill{Total: 100, Done: 43, Waiting: 50, Fetching: 8, Failing: 7, Ends: "2026-12-01T12:00:50Z"},
		Firehose: statuspage.Firehose{Sources: 4, Connected: 2, LagSeconds: 60, Items: []statuspage.Source{
			{Name: "down.example", Kind: "pds", State: "failing"}, {Name: "far.example", Kind: "relay", State: "connected", LagSeconds: 60},
			{Name: "near.example", Kind: "relay", State: "connected", LagSeconds: 1}, {Name: "new.example", Kind: "relay", State: "connecting"}}},
	}
	charts := s.Charts
	s.Charts = statuspage.Charts{}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Error(diff)
	}
	if len(charts.Hour.Series.Live) != 20 || charts.Hour.Step != 10 || charts.Day.Step != 300 || charts.Hour.Series.Records != nil {
		t.Errorf("%+v", charts.Hour)
	}
}

// TestPrivateParts: no text of a fact but a public host name and the version becomes public.
func TestPrivateParts(t *testing.T) {
	t.Parallel()
	n := 0
	secret := func() string { n++; return fmt.Sprintf("secret%d", n) }
	f := statuspage.Facts{Now: now, Paused: []string{secret()}, Phase: secret(), Charts: shrinking(t, 20),
		Counts: map[string]int64{secret(): 1, "repos": 2, "pending": 2}}
	for _, kind := range append(slices.Clone(alert.Kinds[:]), alert.Kind(secret())) {
		for _, state := range []alert.State{alert.Alert, alert.Grace} {
			f.Alerts = append(f.Alerts, alert.Subject{Kind: kind, Name: secret(), Error: secret(), Now: state, Since: now})
		}
	}
	for _, name := range []string{"disk", "lag", "cpu", secret()} {
		f.Conditions = append(f.Conditions, condition.Status{Name: name, State: condition.Waiting, Reason: secret(), Subject: secret(), Error: secret()})
	}
	for _, url := range []string{"wss://user:%s@public.example/%s", "wss://%s.internal:80/", "ws://%s/xrpc", "ws://%s:3000", "ws://%s.local", "ws://%s.home.arpa."} {
		f.Sources = append(f.Sources, statuspage.Following{URL: strings.ReplaceAll(url, "%s", secret()), Failing: true})
	}
	body, err := json.Marshal(statuspage.Of(f))
	if err != nil {
		t.Fatal(err)
	}
	if text := string(body); strings.Contains(text, "secret") || strings.Contains(text, "77777777") || strings.Contains(text, "7.77778e") ||
		!strings.Contains(text, `"name":"public.example"`) {
		t.Errorf("%s", text)
	}
}

// TestProblemsAreNamed: each kind of alert has a public name that is documented, and that the page has
// words for.
func TestProblemsAreNamed(t *testing.T) {
	t.Parallel()
	script, err := os.ReadFile("files/status.js")
	if err != nil {
		t.Fatal(err)
	}
	docs, err := os.ReadFile("../../docs/dashboard.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range alert.Kinds {
		p := statuspage.Of(statuspage.Facts{Alerts: []alert.Subject{{Kind: kind, Now: alert.Alert}}}).Problems[0]
		if p.Name == "other" || !strings.Contains(string(script), " "+p.Name+`: "`) || !strings.Contains(string(docs), "`"+p.Name+"`") {
			t.Errorf("the alert %s is named %s, which docs/dashboard.md or status.js lacks", kind, p.Name)
		}
	}
}

// TestPublicHosts: a host has its name unless only a private network knows it.
func TestPublicHosts(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"wss://relay1.us-east.bsky.network": "relay1.us-east.bsky.network",
		"wss://relay.example:8443/path":     "relay.example:8443",
		"ws://127.0.0.1:3000":               "",
		"ws://10.1.2.3":                     "",
		"ws://[::1]:80":                     "",
		"ws://[fd00::1]":                    "",
		"ws://[2606:4700::1111]:80":         "[2606:4700::1111]:80",
		"ws://1.1.1.1":                      "1.1.1.1",
		"ws://relay":                        "",
		"ws://RELAY.Internal:1":             "",
		"ws://10.1":                         "", // short for 10.0.0.1
		"ws://0x7f.1:80":                    "",
		"":                                  "",
	} {
		s := statuspage.Of(statuspage.Facts{Sources: []statuspage.Following{{URL: url}}})
		if got := s.Firehose.Items[0].Name; got != want {
			t.Errorf("%s is named %q, want %q", url, got, want)
		}
	}
}

// TestSourcesAreBounded: of many sources those that fail are shown.
func TestSourcesAreBounded(t *testing.T) {
	t.Parallel()
	var all []statuspage.Following
	for i := range 1000 {
		all = append(all, statuspage.Following{URL: fmt.Sprintf("wss://r%03d.example", i), Running: i != 999, Failing: i == 999})
	}
	h := statuspage.Of(statuspage.Facts{Sources: all}).Firehose
	if len(h.Items) != 20 || h.Items[0].Name != "r999.example" || h.Sources != 1000 || h.Connected != 999 {
		t.Errorf("%+v", h)
	}
}

// TestVerdict says whether the daemon is well: by the levels of package verdict, in public words.
func TestVerdict(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		facts       statuspage.Facts
		level, text string
	}{
		{statuspage.Facts{}, "good", "all is well"},
		{statuspage.Facts{Alerts: []alert.Subject{{Now: alert.Grace}}}, "warn", "1 failing, may recover"},
		{statuspage.Facts{Alerts: []alert.Subject{{Now: alert.Alert}, {Now: alert.Grace}}}, "bad", "1 alert"},
		{statuspage.Facts{Sources: []statuspage.Following{{URL: "wss://a.example"}}}, "bad", "no firehose connected"},
		{statuspage.Facts{Sources: []statuspage.Following{{URL: "wss://a.example"}, {URL: "wss://b.example", Running: true}}}, "bad", "a firehose is not connected"},
		{statuspage.Facts{Sources: []statuspage.Following{{URL: "wss://a.example", Direct: true}, {URL: "wss://b.example", Running: true}}}, "good", "all is well"},
		{statuspage.Facts{Paused: []string{"crawler", "backfill"}}, "warn", "backfill and crawler paused"},
		{statuspage.Facts{Paused: []string{"firehose"}}, "bad", "firehose paused"},
		{statuspage.Facts{Paused: []string{"a name"}}, "warn", "a part is paused"},
		{statuspage.Facts{Phase: "suspended", Paused: []string{"firehose"}}, "bad", "stopping or suspended, firehose paused"},
	} {
		if v := statuspage.Of(c.facts).Verdict; v.Level != c.level || v.Text != c.text {
			t.Errorf("%+v, want %s: %s", v, c.level, c.text)
		}
	}
}

// TestEnds: an end that nothing suggests is not promised.
func TestEnds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		facts statuspage.Facts
		want  bool
	}{
		"shrinks":     {statuspage.Facts{Charts: shrinking(t, 20), Counts: map[string]int64{"pending": 5}}, true},
		"young":       {statuspage.Facts{Charts: shrinking(t, 5), Counts: map[string]int64{"pending": 5}}, false},
		"no charts":   {statuspage.Facts{Counts: map[string]int64{"pending": 5}}, false},
		"empty queue": {statuspage.Facts{Charts: shrinking(t, 20)}, false},
		"too far":     {statuspage.Facts{Charts: shrinking(t, 20), Counts: map[string]int64{"pending": 1e9}}, false},
	} {
		c.facts.Now = now
		if got := statuspage.Of(c.facts).Backfill.Ends; (got != "") != c.want {
			t.Errorf("%s: the end is %q", name, got)
		}
	}
}
