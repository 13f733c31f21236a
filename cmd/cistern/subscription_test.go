package main

import (
	"bytes"
	"strings"
	"testing"

	"cistern/cmd/cistern/command"
	"cistern/ingest/simnet"

	"github.com/gorilla/websocket"
)

// TestSubscriptionCommands runs the subscription commands against a daemon.
func TestSubscriptionCommands(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 3, Repos: 2, Hosts: 1})
	x := newTestIndex(t)
	x.start(t, x.args(n))
	command := func(args ...string) (string, error) {
		var out bytes.Buffer
		a := &app{Process: command.Process{Stdout: &out, Stderr: &out, Environ: []string{"CISTERN_ADMIN=" + x.admin}}}
		err := a.run(t.Context(), append([]string{"subscription"}, args...))
		return out.String(), err
	}
	connect := func() {
		t.Helper()
		ws, _, err := websocket.DefaultDialer.Dial("ws://"+x.admin+"/subscriptions/all/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ws.Close() })
		if _, _, err := ws.ReadMessage(); err != nil {
			t.Fatal(err)
		}
	}
	steps := []struct {
		name  string
		args  []string // nil: a consumer connects
		want  []string // in the output
		fails string   // in the error
	}{
		{"none", []string{"ls"}, []string{"no subscriptions"}, ""},
		{"made", []string{"add", "all", "--start", "oldest", "--share", "did"}, []string{"all added from event 1 on; lag "}, ""},
		{"with a filter", []string{"add", "b", "--collection", "app.bsky.*", "--did", n.DIDs()[0], "--kind", "record", "--action", "create",
			"--historical"}, []string{"b added from event ", "; lag 0"}, ""},
		{"twice", []string{"add", "b"}, nil, "there is a subscription b: --replace"},
		{"changed", []string{"add", "b", "--replace", "--live", "--share", "exclusive"}, []string{"b changed from event "}, ""},
		{"changed, absent", []string{"add", "c", "--replace"}, nil, "leave out --replace"},
		{"both", []string{"add", "c", "--live", "--historical"}, nil, "either --live or --historical"},
		{"moved by add", []string{"add", "b", "--replace", "--start", "head"}, nil, "either --replace or --start"},
		{"bad start", []string{"add", "c", "--start", "then"}, nil, `--start "then": want snapshot, oldest`},
		{"start beyond the log", []string{"add", "c", "--start", "999999999"}, nil, "999999999"},
		{"bad collection", []string{"add", "c", "--collection", "a b"}, nil, `--collection "a b"`},
		{"bad share", []string{"add", "c", "--share", "all"}, nil, `--share "all"`},
		{"bad name", []string{"add", "no/name"}, nil, "no/name"},
		{"no name", []string{"add"}, nil, "takes NAME, got 0 arguments"},
		{"a consumer", nil, nil, ""},
		{"listed", []string{"ls"}, []string{"NAME  CONNECTIONS  LAG", "UNACKED  OLDEST  HOLDS", "\nall   1 ", "all events", `b     0`, `{"live":true}`}, ""},
		{"as JSON", []string{"ls", "--json"}, []string{`{"name":"all",`, `{"name":"b",`}, ""},
		{"one", []string{"show", "all"}, []string{"share              did", "next "}, ""},
		{"one unknown", []string{"show", "c"}, nil, `NotFound: there is no subscription "c"`},
		{"replayed", []string{"replay", "all", "2"}, []string{"all replayed from event 2 on; lag "}, ""},
		{"to the head", []string{"replay", "all", "head"}, []string{"; lag 0"}, ""},
		{"by age", []string{"replay", "all", "1h"}, []string{"all replayed from event 1 on"}, ""},
		{"by time", []string{"replay", "all", "2006-01-02T15:04:05Z", "--json"}, []string{`"next":1,`}, ""},
		{"no start", []string{"replay", "all"}, nil, "takes NAME START, got 1 argument"},
		{"to nowhere", []string{"replay", "all", "0"}, nil, `START "0": want snapshot, oldest`},
		{"with a snapshot", []string{"replay", "all", "snapshot"}, []string{"all replayed with a snapshot, and then from event ", "; lag 0"}, ""},
		{"snapshots listed", []string{"ls"}, []string{" snapshot: 0 "}, ""},
		{"a snapshot", []string{"show", "all"}, []string{"snapshot", "records"}, ""},
		{"made with a snapshot", []string{"add", "s", "--start", "snapshot"}, []string{"s added with a snapshot, and then from event "}, ""},
		{"beyond the log", []string{"replay", "all", "999999999"}, nil, "999999999"},
		{"unknown to replay", []string{"replay", "c", "head"}, nil, "NotFound"},
		{"a consumer again", nil, nil, ""},
		{"removed", []string{"rm", "all", "b"}, []string{"all removed", "b removed"}, ""},
		{"removed twice", []string{"rm", "b"}, nil, "NotFound"},
		{"no daemon", []string{"ls", "--admin", freeAddress(t)}, nil, "no daemon answers"},
		{"unknown command", []string{"lst"}, nil, "did you mean ls?"},
		{"help", []string{"replay", "--help"}, []string{"START is", "replay search oldest"}, ""},
	}
	if err := x.call(t.Context(), "PUT", "/repos", n.DIDs(), func([]byte) error { return nil }); err != nil {
		t.Fatal(err)
	}
	x.settle(t, map[string]int64{"synced": 2})
	for _, s := range steps {
		if s.args == nil {
			connect()
			continue
		}
		out, err := command(s.args...)
		if s.fails == "" && err != nil || s.fails != "" && (err == nil || !strings.Contains(err.Error(), s.fails)) {
			t.Errorf("%s: error %v, want %q", s.name, err, s.fails)
		}
		for _, want := range s.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s: %q does not contain %q", s.name, out, want)
			}
		}
	}
}
