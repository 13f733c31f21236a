package backfill_test

import (
	"testing"

	"cistern/backfill"
	"cistern/backfill/backfilltest"
	"cistern/ingest/simnet"
	"cistern/store"
)

// world is a simulated network, a store and a runner between them.
type world struct{ *backfilltest.World }

type worldOptions struct {
	net    simnet.Options
	store  store.Options
	runner backfill.Options
}

func newWorld(t testing.TB, o worldOptions) *world {
	t.Helper()
	w := &world{backfilltest.New(t, backfilltest.Options{Net: o.net, Store: o.store})}
	w.start(o.runner)
	return w
}

// start creates a runner over the world's store and runs it.
func (w *world) start(o backfill.Options) {
	w.T.Helper()
	w.Make(o)
	w.Go()
	stop := w.Stop
	w.Stop = func() {
		stop()
		if free, running := backfill.Permits(w.Run); running != 0 {
			w.T.Errorf("after the end %d permits are free, %d taken", free, running)
		}
		if bodies, spools := backfill.Memory(w.Run); bodies != 0 || spools != 0 {
			w.T.Errorf("after the end bodies hold %d bytes, spools %d", bodies, spools)
		}
	}
}

// eachCrash is Crashes.Each for worlds of this package.
func eachCrash(c *backfilltest.Crashes, w *world, least int, goOn func(w *world)) {
	w.T.Helper()
	c.Each(w.World, least, func(again *backfilltest.World) { goOn(&world{again}) })
}

// looked makes the runner begin all work that it would begin by itself now, and waits until that
// work has ended.
func (w *world) looked() {
	w.T.Helper()
	for range 2 { // the end of a task may start another
		if err := backfill.Look(w.T.Context(), w.Run); err != nil {
			w.T.Fatal(err)
		}
		w.Until("no task to run", func() bool { return w.Run.Syncing() == 0 })
	}
}
