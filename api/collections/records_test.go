package collections_test

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	"cistern/api/collections"
	"cistern/api/wire"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/prometheus/client_golang/prometheus"
)

// A list by time of more repositories than it may merge is refused by name, and hidden accounts do not
// count.
func TestTooManyRepositories(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	for n := range 4 {
		did := storetest.DID(n)
		change(t, s, did, func(r *store.Repo) { r.State, r.Tracked = store.StatePending, store.ByOperator })
		row, err := s.Repo(did)
		if err != nil {
			t.Fatal(err)
		}
		im := storetest.Records{"app.test.a/1": storetest.Text(did)}.Import(row, storetest.Rev(1))
		im.Done = func(_ store.Repo, err error) {
			if err != nil {
				t.Error(err)
			}
		}
		if err := errors.Join(s.Import(t.Context(), im), s.FlushImports()); err != nil {
			t.Fatal(err)
		}
	}
	c := collections.New(collections.Options{Store: s, TimeOrderRepos: 3,
		Refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "refused"})})
	ask := func() (string, error) {
		q, err := wire.ParseQuery(httptest.NewRequest("GET", "/?collection=app.test.a&order=time", nil), "did")
		if err != nil {
			t.Fatal(err)
		}
		page, err := c.Records(t.Context(), q)
		return string(page), err
	}
	var refusal *wire.Refusal
	if _, err := ask(); !errors.As(err, &refusal) || refusal.Name != "TooManyRepositories" ||
		!strings.Contains(refusal.Message, "4 show records of app.test.a, at most 3") {
		t.Errorf("of four: %v", err)
	}
	change(t, s, storetest.DID(1), func(r *store.Repo) { r.Status = store.StatusTakendown })
	if page, err := ask(); err != nil || strings.Count(page, `"rkey":"1"`) != 3 {
		t.Errorf("of three: %s, %v", page, err)
	}
}

func change(t *testing.T, s *store.Store, did string, fn func(*store.Repo)) {
	t.Helper()
	defer s.Lock(did)()
	row, err := s.RepoOrNew(did)
	if err != nil {
		t.Fatal(err)
	}
	b := s.NewBatch()
	fn(&row)
	b.PutRepo(&row)
	if err := b.CommitSync(); err != nil {
		t.Fatal(err)
	}
}
