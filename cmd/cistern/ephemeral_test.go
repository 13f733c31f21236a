package main

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"cistern/ingest/simnet"
)

// TestEphemeralDaemon: the daemon keeps the mode of its store, and a check needs no option for it.
func TestEphemeralDaemon(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Hosts: 1, Repos: 5, RecordsMedian: 10, RecordsMax: 40})
	x := newTestIndex(t)
	args := x.args(n, "--crawl", "repos::"+n.Hosts()[0].URL())
	stop := x.start(t, append(args, "--ephemeral"))
	x.settle(t, map[string]int64{"synced": active(n.Accounts())})
	res, err := http.Get("http://" + x.public + "/xrpc/com.atproto.repo.describeRepo?repo=" + n.DIDs()[0])
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(res.Body)
	if res.Body.Close(); err != nil || res.StatusCode != http.StatusNotImplemented || !strings.Contains(string(text), "EventsOnly") {
		t.Errorf("describeRepo: %s %s (%v)", res.Status, text, err)
	}
	x.wantLog(t, n.Accounts())
	stop()
	out, err := x.command(t.Context(), nil, "check", "--data", x.dir)
	if err != nil || !strings.Contains(out, "events only") {
		t.Errorf("check: %v\n%s", err, out)
	}
	if _, err = x.command(t.Context(), nil, args...); err == nil || !strings.Contains(err.Error(), "start with --ephemeral") {
		t.Errorf("started without --ephemeral: %v", err)
	}
}
