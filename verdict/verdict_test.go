package verdict_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"cistern/alert"
	"cistern/verdict"
)

var now = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

// relay is a source that is not connected.
const relay = "wss://relay1.us-east.bsky.network"

// failing returns a subject that has failed for an hour.
func failing(state alert.State, due time.Duration) []alert.Subject {
	s := alert.Subject{Kind: alert.Disk, Name: "x", Now: state, Since: now.Add(-time.Hour), Error: "broken", Attempts: 2, Least: 3}
	if due != 0 {
		s.Due = now.Add(due)
	}
	return []alert.Subject{s}
}

// TestVerdict has a row for each part of the rule: which facts are problems, which are notes.
func TestVerdict(t *testing.T) {
	t.Parallel()
	down := []verdict.Source{{URL: "wss://ok.example", Running: true}, {URL: relay, Failure: "503"}}
	sourceAlert := alert.Subject{Kind: alert.Source, Name: relay, Now: alert.Alert, Since: now.Add(-time.Hour), Error: "broken"}
	hostAlert := sourceAlert
	hostAlert.Kind = alert.Host
	for name, c := range map[string]struct {
		facts           verdict.Facts
		problems, notes string
	}{
		"well":      {},
		"not ready": {verdict.Facts{Unready: "the store has failed"}, "the store has failed", ""},
		"an alert":  {verdict.Facts{Alerts: failing(alert.Alert, 0)}, "alert: disk x since 1 hour ago: broken", ""},
		"grace":     {verdict.Facts{Alerts: failing(alert.Grace, 8*time.Minute)}, "", "disk x fails: an alert 8 minutes from now"},
		"grace without a time": {verdict.Facts{Alerts: failing(alert.Grace, 0)}, "",
			"disk x fails: not for long enough for an alert"},
		"grace that waits for attempts": {verdict.Facts{Alerts: failing(alert.Grace, -time.Minute)}, "",
			"disk x fails: an alert after 3 failed attempts, 2 so far"},
		"a source is down":                    {verdict.Facts{Sources: down}, "not connected: " + relay + ": 503", ""},
		"a source that has not failed yet":    {verdict.Facts{Sources: []verdict.Source{{URL: relay}}}, "not connected: " + relay, ""},
		"a source that Cistern added is down": {verdict.Facts{Sources: []verdict.Source{{URL: relay, Direct: true}}}, "", ""},
		"a source that alerts":                {verdict.Facts{Sources: down, Alerts: []alert.Subject{sourceAlert}}, "alert: source " + relay + " since 1 hour ago: broken", ""},
		"an alert of another kind about it": {verdict.Facts{Sources: down, Alerts: []alert.Subject{hostAlert}},
			"alert: host " + relay + " since 1 hour ago: broken; not connected: " + relay + ": 503", ""},
		"suspended": {verdict.Facts{Phase: &verdict.Phase{Name: "suspended", Wanted: "suspended", Reached: true}, Sources: down,
			Paused: map[string][]string{"firehose": {"suspended"}, "backfill": {"suspended"}}},
			"the daemon is suspended: it takes no new data; 'cistern phase resume' ends that", ""},
		"suspended by an option": {verdict.Facts{Phase: &verdict.Phase{Name: "suspended", Wanted: "suspended", Reached: true, Reason: "the daemon was started with --read-only"}, Sources: down,
			Paused: map[string][]string{"firehose": {"suspended"}, "backfill": {"suspended"}}}, "",
			"the daemon is suspended until it ends: the daemon was started with --read-only"},
		"draining": {verdict.Facts{Phase: &verdict.Phase{Name: "draining", Wanted: "suspended"}},
			"the daemon is draining, on the way to suspended: it takes no new data; 'cistern phase resume' ends that", ""},
		"a phase that cannot be reached": {verdict.Facts{Phase: &verdict.Phase{Name: "draining", Wanted: "suspended", Failure: "no space"}},
			"the daemon is draining: no space: it takes no new data; 'cistern phase resume' ends that", ""},
		"the firehose is paused, and its source is down": {verdict.Facts{Sources: down, Paused: map[string][]string{"firehose": {"switched off"}}},
			"firehose is paused: switched off", ""},
		"backfill and crawler are paused": {verdict.Facts{Paused: map[string][]string{"crawler": {"a", "b"}, "backfill": {"hours: 20:00-06:00"}}}, "",
			"backfill is paused: hours: 20:00-06:00; crawler is paused: a, b"},
		"the disk is short in an hour":  {verdict.Facts{DiskShort: now.Add(time.Hour)}, "the disk reaches its reserve 1 hour from now", ""},
		"the disk is short in two days": {verdict.Facts{DiskShort: now.Add(48 * time.Hour)}, "", "the disk reaches its reserve 2 days from now"},
		"the disk is short, and an alert says so": {verdict.Facts{DiskShort: now, Alerts: failing(alert.Alert, 0)},
			"alert: disk x since 1 hour ago: broken", ""},
		"the disk is short in a month": {verdict.Facts{DiskShort: now.Add(30 * 24 * time.Hour)}, "", ""},
		"a relay in mode filter finds nothing": {verdict.Facts{Tracking: &verdict.Tracking{}}, "",
			"nothing is tracked: run 'cistern repo add DID', or set mode full (PATCH /filter); mode filter finds nothing without --signal or --crawl"},
		"mode full without a source": {verdict.Facts{Tracking: &verdict.Tracking{Full: true}}, "",
			"nothing is tracked: name a source by --relay, --pds or --crawl, or run 'cistern repo add DID'"},
		"nothing is found yet": {verdict.Facts{Tracking: &verdict.Tracking{Finds: true}}, "", ""},
		"one is tracked":       {verdict.Facts{Tracking: &verdict.Tracking{Repos: 1}}, "", ""},
		"a backup by command failed": {verdict.Facts{Backups: []verdict.Backup{{Destination: "s3://b/p", Ended: now.Add(-time.Hour), Error: "no space"}}}, "",
			"the last backup by command to s3://b/p failed 1 hour ago: no space"},
		"an option is ignored": {verdict.Facts{Ignored: []verdict.Ignored{{Option: "--mode full", Held: "filter"}}}, "",
			"--mode full is ignored: the store keeps filter, which PATCH /filter changes"},
	} {
		c.facts.Now = now
		v := verdict.Of(c.facts)
		if got := strings.Join(v.Problems, "; "); got != c.problems {
			t.Errorf("%s: problems %q, want %q", name, got, c.problems)
		}
		if got := strings.Join(v.Notes, "; "); got != c.notes {
			t.Errorf("%s: notes %q, want %q", name, got, c.notes)
		}
		level := verdict.Good
		switch {
		case c.problems != "":
			level = verdict.Bad
		case c.notes != "":
			level = verdict.Warn
		}
		if v.Level != level || v.Ready != (c.facts.Unready == "") || v.Count != len(v.Problems) {
			t.Errorf("%s: %+v, want level %s", name, v, level)
		}
	}
}

// TestWords: a verdict in a few words counts problems and notes.
func TestWords(t *testing.T) {
	t.Parallel()
	problem, note := failing(alert.Alert, 0), failing(alert.Grace, 0)
	for want, alerts := range map[string][]alert.Subject{
		"all is well":         nil,
		"no problem, 1 note":  note,
		"1 problem":           problem,
		"2 problems, 2 notes": append(append(append(problem, problem...), note...), note...),
	} {
		if v := verdict.Of(verdict.Facts{Now: now, Alerts: alerts}); v.Text != want {
			t.Errorf("%q, want %q", v.Text, want)
		}
	}
}

// TestSentencesAreBounded: of very many problems the verdict names the first, and counts all
// (invariant 2).
func TestSentencesAreBounded(t *testing.T) {
	t.Parallel()
	f := verdict.Facts{Now: now}
	for i := range 1000 {
		f.Sources = append(f.Sources, verdict.Source{URL: fmt.Sprintf("wss://r%d.example", i)})
		f.Alerts = append(f.Alerts, failing(alert.Grace, 0)...)
	}
	v := verdict.Of(f)
	if len(v.Problems) != 50 || len(v.Notes) != 50 || v.Count != 1000 || v.Text != "1,000 problems, 1,000 notes" ||
		v.Problems[48] != "not connected: wss://r48.example" || v.Problems[49] != "951 problems more: see 'cistern alerts'" {
		t.Errorf("%+v", v)
	}
}
