package export_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"

	"cistern/api/export"
	"cistern/store/storetest"

	"github.com/prometheus/client_golang/prometheus"
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
