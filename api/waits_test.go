package api_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"cistern/api"
	"cistern/api/admin"
	"cistern/store"
	"cistern/store/storetest"
)

// TestWaits: the row of a repository that is pending states that its host is banned or parked, and
// the log states which host was banned.
func TestWaits(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	parked := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	var w *world
	w = newWorld(t, api.Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), Hosts: admin.Hosts{Standing: func(id uint32) (s admin.HostStanding) {
		h, _ := w.store.HostByID(id)
		s.Banned = h.Banned
		if h.Name == "parked.test" {
			s.ParkedUntil = parked
		}
		return s
	}}})
	row := func(n int, host string) (did string) {
		t.Helper()
		did = storetest.DID(n)
		id, err := w.store.HostID(host)
		if err != nil {
			t.Fatal(err)
		}
		defer w.store.Lock(did)()
		r, err := w.store.RepoOrNew(did)
		if err != nil {
			t.Fatal(err)
		}
		r.State, r.Tracked, r.Pending = store.StatePending, store.ByOperator, store.PendingKey{Host: id, Priority: store.PriorityOperator}
		b := w.store.NewBatch()
		b.PutRepo(&r)
		if err := b.CommitSync(); err != nil {
			t.Fatal(err)
		}
		return did
	}
	waits := func(did string) string {
		t.Helper()
		var it struct{ Waits string }
		call(t, "GET", w.admin.URL+"/repos/"+did, "", nil, &it)
		return it.Waits
	}
	fine, banned, left := row(1, "fine.test"), row(2, "banned.test"), row(3, "parked.test")
	call(t, "PUT", w.admin.URL+"/hosts/banned.test/ban", "", jsonType, nil)
	call(t, "PUT", w.admin.URL+"/hosts/banned.test/ban", "", jsonType, nil)
	for did, want := range map[string]string{fine: "", banned: "host banned.test is banned", left: "host parked.test is left alone until 2026-05-06T07:08:09Z"} {
		if got := waits(did); got != want {
			t.Errorf("%s: %q, want %q", did, got, want)
		}
	}
	call(t, "DELETE", w.admin.URL+"/hosts/banned.test/ban", "", jsonType, nil)
	call(t, "PUT", w.admin.URL+"/hosts/fine.test/limits", `{"concurrency":3}`, jsonType, nil)
	if got := waits(banned); got != "" {
		t.Errorf("no longer banned: %q", got)
	}
	for _, line := range []string{`msg="host is banned: it is not asked any more" host=banned.test`, `msg="host is no longer banned" host=banned.test`,
		`msg="the limits of a host were changed" host=fine.test`} {
		if n := strings.Count(log.String(), line); n != 1 {
			t.Errorf("%d times in the log: %s\n%s", n, line, log.String())
		}
	}
}
