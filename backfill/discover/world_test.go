package discover_test

import (
	"net/http"
	"testing"

	"cistern/backfill"
	"cistern/backfill/backfilltest"
	"cistern/backfill/discover"
	"cistern/gate"
	"cistern/ingest/simnet"
	"cistern/store"
)

// world is a simulated network, a store and both runners between them.
type world struct {
	*backfilltest.World
	crawl     *discover.Runner
	crawlGate *gate.Gate
	follows   func(source uint32) bool // of backfill.Options, as transport
	transport http.RoundTripper
}

type worldOptions struct {
	net   simnet.Options
	store store.Options
	crawl discover.Options
}

func newWorld(t testing.TB, o worldOptions) *world {
	t.Helper()
	w := &world{World: backfilltest.New(t, backfilltest.Options{Net: o.net, Store: o.store})}
	w.start(o.crawl)
	return w
}

// start creates a runner and discovery over the world's store, and runs both.
func (w *world) start(o discover.Options) {
	w.T.Helper()
	if o.Logger == nil {
		o.Logger = backfilltest.Logger()
	}
	w.Make(backfill.Options{Follows: w.follows, IdleTimeout: o.IdleTimeout, Logger: o.Logger, Registerer: o.Registerer,
		Transport: w.transport})
	w.crawlGate = new(gate.Gate)
	o.Store, o.Hosts, o.Directory, o.Enqueued = w.Store, w.Run.Hosts(), w.Dir, w.Run.Enqueued
	o.AllowPrivate, o.Gate, o.Now = true, w.crawlGate, w.Clock.Now
	var err error
	if w.crawl, err = discover.New(o); err != nil {
		w.T.Fatal(err)
	}
	w.Beside = w.crawl
	w.Go(w.crawl.Run)
}

// eachCrash is Crashes.Each for worlds of this package.
func eachCrash(c *backfilltest.Crashes, w *world, least int, goOn func(w *world)) {
	w.T.Helper()
	c.Each(w.World, least, func(again *backfilltest.World) { goOn(&world{World: again}) })
}

// hostChanged applies changed settings of a host, as the daemon does.
func (w *world) hostChanged(id uint32) {
	w.Run.HostChanged(id)
	w.crawl.HostChanged(id)
}

// lists makes every crawl source read the lists that are due, except for so many that a test holds
// up.
func (w *world) lists(held int) {
	w.T.Helper()
	if err := discover.LookAtLists(w.T.Context(), w.crawl, held); err != nil {
		w.T.Fatal(err)
	}
}
