package admin_test

import (
	"strings"
	"testing"

	"cistern/api/admin"
	"cistern/store"
	"cistern/store/storetest"
)

// TestKinds: a request that is not a GET changes something, so its route has a kind that keeps web
// pages from it (invariant 2). A name stands for one route in metrics.
func TestKinds(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	names := map[string]string{}
	h, err := admin.New(admin.Options{Store: s})
	if err != nil {
		t.Fatal(err)
	}
	routes := h.Routes()
	for _, r := range routes {
		if read := strings.HasPrefix(r.Pattern, "GET /"); read != (r.Kind == admin.Read) {
			t.Errorf("%s has kind %d", r.Pattern, r.Kind)
		}
		if r.Kind < admin.Read || r.Kind > admin.Lend {
			t.Errorf("%s has the unknown kind %d", r.Pattern, r.Kind)
		}
		if other := names[r.Name]; other != "" {
			t.Errorf("%s and %s have the name %s", other, r.Pattern, r.Name)
		}
		names[r.Name] = r.Pattern
	}
	if len(routes) == 0 {
		t.Error("no routes")
	}
	storetest.Check(t, s)
}
