package ingest_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"cistern/ingest"
	"cistern/ingest/firehose"
	"cistern/ingest/identity"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/prometheus/client_golang/prometheus"
)

// Two relays, with sockets, while accounts write, rotate keys, move and rename themselves.
func TestRunFollowsTwoRelays(t *testing.T) {
	t.Parallel()
	net, err := simnet.New(simnet.Options{Seed: 3, Repos: 6, Hosts: 2, Relays: 2, RecordsMedian: 8})
	if err == nil {
		err = net.Start(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = net.Close() })
	dir, err := identity.New(identity.Options{PLC: []string{net.PLC()}, AllowPrivate: true})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, net: net, store: storetest.Open(t, store.Options{}), now: time.Now(), reg: prometheus.NewRegistry()}
	w.hose = firehose.Options{AllowPrivate: true, RetryBase: 10 * time.Millisecond}
	w.opts = ingest.Options{Store: w.store, Directory: dir, Registerer: w.reg, Now: w.clock}
	for _, relay := range net.Relays() {
		w.hose.Sources = append(w.hose.Sources, store.Source{URL: relay.URL()})
		relay.InjectStream(simnet.StreamFault{Kind: simnet.StreamDuplicate, Ahead: 2, After: 3, Count: 20})
		relay.InjectStream(simnet.StreamFault{Kind: simnet.StreamDisconnect, After: 40, Count: 2})
	}
	w.hold(net.Accounts()...)
	w.make()
	turn := func(round int) {
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.r.Run(ctx) }()
		w.until("both relays are connected", func() bool {
			s := w.sources.Status()
			return len(s) == 2 && s[0].Running && s[1].Running
		})
		w.connected(net.Relays()...)
		for i := range 20 {
			for _, a := range net.Accounts() {
				w.put(a, fmt.Sprintf("app.test.x/%d", i%7), fmt.Sprint(round, i))
			}
		}
		a := net.Accounts()[round]
		a.RotateKey()
		a.SetHandle(fmt.Sprintf("round%d.test", round))
		w.put(a, "app.test.x/rotated", "1")
		for _, a := range net.Accounts() {
			w.until("it is complete", func() bool { return w.row(a).Rev == a.Truth().Rev || w.row(a).State != store.StateSynced })
			w.equal(a)
		}
		w.until("the identity is known", func() bool { return w.row(a).Handle == a.Handle() })
		stop()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		for _, s := range w.sources.Status() {
			if s.Cursor == 0 || s.Running {
				t.Errorf("after round %d: %+v", round, s)
			}
		}
	}
	turn(0)
	turn(1) // the same Runner goes on at its cursors
	if n := w.count("events_total", "commit", "desynced") + w.count("events_total", "commit", "rejected"); n != 0 {
		t.Errorf("%d commits did not fit", n)
	}
}

// Hosts older than sync v1.1 must not make us fetch a repository with every commit.
func TestLegacyHostBehind(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	w.net.RelayHost().InjectStream(simnet.StreamFault{Kind: simnet.StreamGap, DID: a.DID(), Count: 1})
	w.net.RelayHost().InjectStream(simnet.StreamFault{Kind: simnet.StreamNoPrevData, DID: a.DID(), Bare: true})
	w.put(a, "app.test.x/missed", "1")
	for i := range 30 {
		w.put(a, "app.test.x/one", fmt.Sprint(i))
	}
	w.pass()
	if n := w.count("refetches_total", "now") + w.count("refetches_total", "later"); n != 1 {
		t.Errorf("%d fetches, want 1", n)
	}
}
