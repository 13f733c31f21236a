package main

import (
	"bytes"
	"strings"
	"testing"

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
		{[]string{"ls"}, []string{"HOST ", "QUEUED", host, "ok"}, ""},
		{[]string{"ls", "--limit", "1"}, []string{"of 3 hosts: --limit 0"}, ""},
		{[]string{"ls", "--json"}, []string{`{"host":"` + host}, ""},
		{[]string{"ls", "--state", "banned"}, []string{"no hosts"}, ""},
		{[]string{"ls", "--state", "odd"}, nil, "want ok"},
		{[]string{"ls", host}, nil, "takes no arguments"},
		{[]string{"limit", host, "2:4"}, []string{"override concurrency 2", "override per_second 4"}, ""},
		{[]string{"limit", host, "2:x"}, nil, `"x" is not a number`},
		{[]string{"limit", host}, nil, "needs a HOST and its limits"},
		{[]string{"show", host}, []string{"override per_second 4"}, ""},
		{[]string{"unlimit", host}, []string{"concurrency_max 10"}, ""},
		{[]string{"ban", host}, []string{"banned"}, ""},
		{[]string{"ls", "--state", "banned"}, []string{host}, ""},
		{[]string{"unban", host}, []string{"ok"}, ""},
		{[]string{"show", "pds.unknown.example"}, nil, "no host"},
		{[]string{"show"}, nil, "needs one HOST"},
	} {
		var out bytes.Buffer
		a := &app{stdout: &out, stderr: &out, environ: []string{"CISTERN_ADMIN=" + x.admin}}
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
