package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"cistern/ingest/simnet"
)

// TestHostRow: the row of a host has its limits, those that an operator set, and its last error with
// its age, so that a host that has recovered does not look as if it failed.
func TestHostRow(t *testing.T) {
	t.Parallel()
	var r hostRow
	line := `{"host":"a.test","state":"ok","accounts":1234,"queued":5678,"in_flight":2,"last_error":"503 Unavailable","last_error_at":"` +
		time.Now().Add(-3*time.Hour).Format(time.RFC3339) + `","bytes":3221225472,"limits":{"concurrency":4,"concurrency_min":1,"concurrency_max":10,"per_second":7,` +
		`"opens_at":"` + time.Now().Add(90*time.Second).Format(time.RFC3339Nano) + `","told":[{"limit":3000,"remaining":12,"reset":"` + time.Now().Add(5*time.Minute).Format(time.RFC3339) + `"}]},` +
		`"override":{"per_second":7}}`
	if err := unmarshalRow([]byte(line), &r); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(r.cells(), "|"), "a.test|ok|5,678|2 of 4|7|:7||1,234|3 hours ago: 503 Unavailable"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	got := map[string]string{}
	for _, fact := range r.facts() {
		got[fact[0]] = fact[1]
	}
	for name, want := range map[string]string{"received": "3.0 GiB", "next request": "1 minute from now", "in flight": "2 of 4 (from 1 to 10)",
		"quota": "12 of 3,000 requests left, renewed 4 minutes from now", "override": ":7"} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
}

// TestHostCommands runs the host commands against a daemon.
func TestHostCommands(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 3, Repos: 12, Hosts: 2})
	x := newTestIndex(t)
	x.start(t, x.args(n, "--mode", "full", "--crawl", "repos::"+n.Relay()))
	x.settle(t, map[string]int64{"repos": 12})
	host := strings.TrimPrefix(n.Host(0).URL(), "http://")
	for _, step := range []struct {
		args  []string
		want  []string // in the output
		fails string   // in the error
	}{
		{[]string{"ls"}, []string{"HOST ", "QUEUED", "IN FLIGHT", "PER SECOND", "OVERRIDE", "LAST ERROR", host, "ok", "0 of "}, ""},
		{[]string{"ls", "--limit", "1"}, []string{"of 3 hosts: --limit 0"}, ""},
		{[]string{"ls", "--json"}, []string{`{"host":"` + host}, ""},
		{[]string{"ls", "--state", "banned"}, []string{"no hosts"}, ""},
		{[]string{"ls", "--state", "odd"}, nil, "want ok"},
		{[]string{"ls", host}, nil, "takes no arguments"},
		{[]string{"limit", host, "2:4"}, []string{"override      2:4\n", "per second    4\n", "(from 1 to 2)"}, ""},
		{[]string{"ls"}, []string{" 4           2:4 "}, ""},
		{[]string{"limit", "127.0.0.1:1", "2:4"}, nil, `no host "127.0.0.1:1" is known; did you mean "127.0.0.1:`},
		{[]string{"limit", "pds.unknown.example", "2:4"}, nil, `no host "pds.unknown.example" is known; 'cistern run --host-limit'`},
		{[]string{"ban", "pds.unknown.example"}, nil, `no host "pds.unknown.example" is known`},
		{[]string{"limit", host, "2:x"}, nil, `limits "2:x": "x" is not a number: want CONCURRENCY[:PER_SECOND[:PER_HOUR[:PER_DAY]]], such as 2:4`},
		{[]string{"limit", host}, nil, "takes HOST CONCURRENCY[:PER_SECOND"},
		{[]string{"show", host}, []string{"per second    4\n", "received      ", "iB\n", "next request  now\n", " ago\n"}, ""},
		{[]string{"unlimit", host}, []string{"(from 1 to 10)", "override      -\n"}, ""},
		{[]string{"ban", host}, []string{"banned"}, ""},
		{[]string{"ls", "--state", "banned"}, []string{host}, ""},
		{[]string{"unban", host}, []string{"ok"}, ""},
		{[]string{"show", "pds.unknown.example"}, nil, "no host"},
		{[]string{"show"}, nil, "needs one HOST"},
	} {
		var out bytes.Buffer
		a := &app{Process: Process{Stdout: &out, Stderr: &out, Environ: []string{"CISTERN_ADMIN=" + x.admin}}}
		err := a.run(t.Context(), append([]string{"host"}, step.args...))
		if err == nil != (step.fails == "") || err != nil && !strings.Contains(err.Error(), step.fails) {
			t.Errorf("host %s: %v", step.args, err)
		}
		for _, want := range step.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("host %s: want %s in\n%s", step.args, want, &out)
			}
		}
	}
}
