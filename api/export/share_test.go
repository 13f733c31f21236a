package export_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cistern/api/clients"
	"cistern/api/export"
	"cistern/store/storetest"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

// watched is a context that tells when it is asked for the first time, and then waits.
type watched struct {
	context.Context
	once       sync.Once
	asked, end chan struct{}
	err        error // once end is closed
}

func newWatched(ctx context.Context, err error) *watched {
	return &watched{Context: ctx, asked: make(chan struct{}), end: make(chan struct{}), err: err}
}

func (c *watched) Done() <-chan struct{} {
	c.once.Do(func() { close(c.asked) })
	return c.Context.Done()
}

func (c *watched) Err() error {
	c.once.Do(func() { close(c.asked) })
	<-c.end
	return c.err
}

// Requests for one tree share the pass over its rows. If the request that makes the pass is aborted,
// another one makes it.
func TestPassIsShared(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := storetest.Random(rand.New(rand.NewPCG(7, 7)), 3000) // more than a step of a scan
	w.hold(t, alice, m)
	for err, built := range map[error]int{nil: 1, context.Canceled: 2} {
		reg := prometheus.NewRegistry()
		e, failed := export.New(export.Options{Registerer: reg})
		if failed != nil {
			t.Fatal(failed)
		}
		open := func(ctx context.Context) chan error {
			result := make(chan error, 1)
			v := w.view(t, alice)
			go func() {
				defer v.Close()
				_, err := e.Open(ctx, v, export.Part{})
				result <- err
			}()
			return result
		}
		first, second := newWatched(t.Context(), err), newWatched(t.Context(), nil)
		close(second.end)
		firstResult := open(first)
		<-first.asked // it reads rows
		secondResult := open(second)
		<-second.asked // it waits, or reads them too
		close(first.end)
		if got := <-firstResult; got != err {
			t.Errorf("the first: %v, want %v", got, err)
		}
		if got := <-secondResult; got != nil || passes(t, reg) != built {
			t.Errorf("the second, after %v: %v, with %d passes, want %d", err, got, passes(t, reg), built)
		}
	}
}

// Requests of one client for one tree compute one at a time beside another client. The request that
// waits for the pass of another does so without a slot, which the pass may need.
func TestPassIsSharedInQueue(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.hold(t, alice, storetest.Random(rand.New(rand.NewPCG(7, 8)), 3000))
	e, err := export.New(export.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var clock atomic.Int64 // each look at it takes longer than a request may compute at a time
	q := clients.NewQueue(2, func() time.Time { return time.UnixMilli(10 * clock.Add(1)) })
	present, greedy := clients.Of("192.0.2.1:1"), clients.Of("192.0.2.2:1")
	var group errgroup.Group
	for range 8 {
		_, leave, err := q.Enter(t.Context(), present)
		if err != nil {
			t.Fatal(err)
		}
		leave()
		group.Go(func() error {
			ctx, leave, err := q.Enter(t.Context(), greedy)
			if err != nil {
				return err
			}
			defer leave()
			v := w.view(t, alice)
			defer v.Close()
			_, err = e.Open(ctx, v, export.Part{})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

// passes returns how often an exporter has read all rows of a repository.
func passes(t testing.TB, reg *prometheus.Registry) (n int) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "cistern_api_export_trees_total" && m.GetLabel()[0].GetValue() == "built" {
				n = int(m.GetCounter().GetValue())
			}
		}
	}
	return n
}
