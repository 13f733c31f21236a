package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"cistern/ingest/simnet"
)

// TestDaemonLive follows two relays through every action of accounts, with a restart in between.
// The store and the log must become equal to the network, and each change must be one event
// although both relays sent it.
func TestDaemonLive(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 17, Repos: 60, Hosts: 3, Relays: 2, Empty: 2, LegacyEvery: 9, Gzip: true})
	x := newTestIndex(t)
	args := x.args(n, "--mode", "full")
	for _, r := range n.Relays() {
		args = append(args, "--relay", r.URL())
	}
	stop := x.start(t, args)
	x.settle(t, map[string]int64{"repos": 60, "synced": 60, "records": records(n.Accounts())})
	x.follow(t, n.Relays()...)

	l := liveliness{t: t, network: n, rng: rand.New(rand.NewPCG(17, 1))}
	head := x.head(t)
	l.act(200)
	x.await(t, "live events", func() error {
		if now := x.head(t); now == head {
			return fmt.Errorf("head %d", now)
		}
		return nil
	})
	stop()
	l.act(100) // to be found behind the cursors
	stop = x.start(t, args)
	x.follow(t, n.Relays()...)
	l.act(200)
	l.bringBack()
	x.settle(t, map[string]int64{"repos": int64(len(n.Accounts())), "synced": active(n.Accounts()), "records": records(n.Accounts())})
	x.awaitRevs(t, n.Accounts())

	got := fold{}
	live := 0
	for _, f := range x.replay(t) {
		if err := got.apply(f); err != nil {
			t.Error(err)
		}
		if f.Record.Live {
			live++
		}
	}
	if live < l.commits/2 {
		t.Errorf("%d live events of %d commits", live, l.commits)
	}
	got.wantTruth(t, n.Accounts())
	for _, r := range x.sources(t, "") {
		if !r.Running || r.Failing || r.Stats.Cursor == 0 || r.Stats.Cursor > r.Stats.Seq || r.Stats.BadFrames+r.Stats.Refused > 0 {
			t.Errorf("source %+v", r)
		}
	}
	stop()
	x.wantStore(t, n.Accounts())
}

// TestDaemonDirect follows PDSes without a relay. One of them is added at runtime and kept over a
// restart.
func TestDaemonDirect(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 18, Repos: 30, Hosts: 2})
	x := newTestIndex(t)
	args := x.args(n, "--crawl", "repos::"+n.Relay(), "--pds", n.Host(0).URL())
	stop := x.start(t, args)
	x.settle(t, map[string]int64{"synced": 30})
	body := fmt.Sprintf(`{"url":%q,"is_pds":true}`, n.Host(1).URL())
	if status, answer := x.send(t, "POST", "/firehose/sources", body); status != http.StatusCreated {
		t.Fatalf("%d %s", status, answer)
	}
	x.prime(t, n, n.Hosts()...)
	l := liveliness{t: t, network: n, rng: rand.New(rand.NewPCG(18, 1)), only: 30}
	l.act(60)
	x.awaitRevs(t, n.Accounts())
	stop()
	l.act(30)
	stop = x.start(t, args)
	x.follow(t, n.Hosts()...)
	l.bringBack()
	x.awaitRevs(t, n.Accounts())
	if got := x.sources(t, "?is_pds=true&running=true"); len(got) != 2 || got[0].Persisted == got[1].Persisted {
		t.Errorf("sources %+v", got)
	}
	source := fmt.Sprintf(`{"url":%q}`, n.Host(1).URL())
	for _, want := range []int{http.StatusOK, http.StatusNotFound} {
		if status, answer := x.send(t, "DELETE", "/firehose/sources", source); status != want {
			t.Errorf("removal: %d %s", status, answer)
		}
	}
	if got := x.sources(t, ""); len(got) != 1 {
		t.Errorf("left are %+v", got)
	}
	stop()
	x.wantStore(t, n.Accounts())
}

// TestDaemonSwitches switches the firehose off and on: the events sent meanwhile arrive then.
func TestDaemonSwitches(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 19, Repos: 20, Hosts: 2})
	x := newTestIndex(t)
	stop := x.start(t, x.args(n, "--mode", "full", "--relay", n.Relay()))
	x.settle(t, map[string]int64{"synced": 20})
	x.prime(t, n, n.RelayHost())
	if status, answer := x.send(t, "PATCH", "/ingestion", `{"firehose":false,"backfill":false}`); status != http.StatusOK ||
		answer != `{"backfill":false,"crawler":true,"firehose":false}` {
		t.Errorf("%d %s", status, answer)
	}
	x.await(t, "the connection to close", func() error {
		if c := n.RelayHost().Connections(); c > 0 {
			return fmt.Errorf("%d connections", c)
		}
		return nil
	})
	head := x.head(t)
	l := liveliness{t: t, network: n, rng: rand.New(rand.NewPCG(19, 1))}
	l.act(20)
	if err := x.call(t.Context(), "POST", "/repos/resync", n.DIDs()[:1], nil); err != nil {
		t.Fatal(err)
	}
	pause(t.Context(), 100*time.Millisecond)
	if counts, err := x.counts(t.Context()); err != nil || x.head(t) != head+1 || counts["pending"] != 1 { // it tells so
		t.Errorf("while both are off: head %d, was %d, %v, %v", x.head(t), head, counts, err)
	}
	x.send(t, "PATCH", "/ingestion", `{"firehose":true,"backfill":true}`)
	x.follow(t, n.RelayHost())
	l.bringBack()
	x.awaitRevs(t, n.Accounts())
	stop()
	x.wantStore(t, n.Accounts())
}

// TestDaemonSignal discovers by the firehose the repositories that write in a collection.
func TestDaemonSignal(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 20, Repos: 10, Hosts: 2})
	x := newTestIndex(t)
	stop := x.start(t, x.args(n, "--relay", n.Relay(), "--signal", "com.example.*"))
	x.follow(t, n.RelayHost())
	wanted, other := n.Accounts()[3], n.Accounts()[4]
	for a, collection := range map[*simnet.Account]string{wanted: "com.example.thing", other: "com.elsewhere.thing"} {
		if _, err := a.Put(collection+"/"+a.NextTID(), map[string]any{"$type": collection, "text": "x"}); err != nil {
			t.Fatal(err)
		}
	}
	x.settle(t, map[string]int64{"repos": 1, "synced": 1, "records": records([]*simnet.Account{wanted})})
	if _, err := wanted.Mutate(2); err != nil {
		t.Fatal(err)
	}
	x.awaitRevs(t, []*simnet.Account{wanted})
	stop()
	x.wantStore(t, []*simnet.Account{wanted})
}

// liveliness makes the accounts of a network act, by a seed.
type liveliness struct {
	t       *testing.T
	network *simnet.Network
	rng     *rand.Rand
	only    int // accounts there may be; 0: 100
	commits int
	away    []*simnet.Account // that will come back
	handles int
}

// act does n things.
func (l *liveliness) act(n int) {
	l.t.Helper()
	for range n {
		l.one()
	}
}

func (l *liveliness) one() {
	accounts := l.network.Accounts()
	a := accounts[l.rng.IntN(len(accounts))]
	most := l.only
	if most == 0 {
		most = 100
	}
	if a.Truth().Status != simnet.Active {
		return
	}
	switch pick := l.rng.IntN(40); {
	case pick == 0 && l.alive() > most/2:
		a.SetStatus(simnet.Deleted)
	case pick == 1 && len(l.away) < most/5:
		a.SetStatus([]simnet.Status{simnet.Deactivated, simnet.Takendown, simnet.Suspended}[l.rng.IntN(3)])
		l.away = append(l.away, a)
	case pick == 2 && len(l.away) > 0:
		l.bringBack()
	case pick == 3:
		l.handles++
		a.SetHandle(fmt.Sprintf("renamed%d.test", l.handles))
	case pick == 4:
		a.RotateKey()
	case pick == 5 && len(accounts) < most:
		l.network.AddAccount(l.network.Host(l.rng.IntN(len(l.network.Hosts()))))
	case pick == 6:
		a.Sync()
	default:
		l.commits++
		if _, err := a.Mutate(1 + l.rng.IntN(5)); err != nil {
			l.t.Errorf("mutate %s: %v", a.DID(), err)
		}
	}
}

func (l *liveliness) alive() int { return int(active(l.network.Accounts())) }

// bringBack makes the accounts that are away active again.
func (l *liveliness) bringBack() {
	for _, a := range l.away {
		a.SetStatus(simnet.Active)
	}
	l.away = nil
}

// follow waits until the daemon reads the streams of hosts.
func (x *testIndex) follow(t *testing.T, hosts ...*simnet.Host) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for _, h := range hosts {
		if err := h.WaitConnections(ctx, 1); err != nil {
			t.Fatalf("%s is not followed: %v", h.URL(), err)
		}
	}
}

// prime follows hosts until each source has a cursor: where it goes on after a restart depends on that.
func (x *testIndex) prime(t *testing.T, n *simnet.Network, hosts ...*simnet.Host) {
	t.Helper()
	x.follow(t, hosts...)
	for _, a := range n.Accounts() {
		a.AnnounceIdentity()
	}
	x.await(t, "cursors", func() error {
		for _, src := range x.sources(t, "") {
			if src.Stats.Cursor == 0 {
				return fmt.Errorf("%s has none", src.URL)
			}
		}
		return nil
	})
}

// awaitRevs waits until the index has the true status of every account, and the true rev of every
// active one.
func (x *testIndex) awaitRevs(t *testing.T, accounts []*simnet.Account) {
	t.Helper()
	for _, a := range accounts {
		truth := a.Truth()
		x.await(t, a.DID()+" to be as it is", func() error {
			var row struct{ State, Status, Rev, Handle string }
			err := x.call(t.Context(), "GET", "/repos/"+truth.DID, nil, func(b []byte) error { return json.Unmarshal(b, &row) })
			switch {
			case err != nil:
				return err
			case row.Status != string(truth.Status) || row.Handle != truth.Handle:
				err = fmt.Errorf("%+v, want %s, %s", row, truth.Status, truth.Handle)
			case truth.Status == simnet.Active && (row.Rev != truth.Rev || row.State != "synced"):
				err = fmt.Errorf("%+v, want synced at %s", row, truth.Rev)
			}
			return err
		})
	}
}

// head returns the newest id of the log.
func (x *testIndex) head(t *testing.T) uint64 {
	t.Helper()
	var stats struct{ Log struct{ Head uint64 } }
	if err := x.call(t.Context(), "GET", "/stats", nil, func(b []byte) error { return json.Unmarshal(b, &stats) }); err != nil {
		t.Fatal(err)
	}
	return stats.Log.Head
}

// listedSource is an item of GET /firehose/sources.
type listedSource struct {
	URL, Host                   string
	Running, Failing, Persisted bool
	Stats                       struct {
		Cursor, Seq, Events, Refused int64
		BadFrames                    int64 `json:"bad_frames"`
	}
}

func (x *testIndex) sources(t *testing.T, query string) (got []listedSource) {
	t.Helper()
	if err := x.call(t.Context(), "GET", "/firehose/sources"+query, nil, func(b []byte) error { return json.Unmarshal(b, &got) }); err != nil {
		t.Fatal(err)
	}
	return got
}

// send sends a request with a body to the private listener.
func (x *testIndex) send(t *testing.T, method, path, body string) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+x.admin+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if x.token != "" {
		req.Header.Set("Authorization", "Bearer "+x.token)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}
