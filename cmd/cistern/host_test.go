package main

import (
	"bytes"
	"strings"
	"testing"

	"cistern/cmd/cistern/command"
	"cistern/ingest/simnet"
)

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
		a := &app{Process: command.Process{Stdout: &out, Stderr: &out, Environ: []string{"CISTERN_ADMIN=" + x.admin}}}
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
