package api_test

import (
	"net/url"
	"testing"
	"time"

	"cistern/api"
	"cistern/api/admin"
	"cistern/backfill/pace"
	"cistern/store"

	"github.com/google/go-cmp/cmp"
)

type hostStatus struct {
	Hostname     string
	Seq          int64
	AccountCount int64
	Status       string
}

// Hosts have the words of the protocol, by their state now, or before the restart of the daemon.
func TestHostStatus(t *testing.T) {
	t.Parallel()
	now := time.Now()
	standing := map[string]pace.View{
		"failing.example.com":   {FailingSince: now},
		"both.example.com":      {FailingSince: now, ParkedUntil: now.Add(time.Hour)},
		"throttled.example.com": {ParkedUntil: now.Add(time.Hour)},
		"banned.example.com":    {Banned: true, FailingSince: now},
	}
	var w *world
	w = newWorld(t, api.Options{
		Hosts: admin.Hosts{Standing: func(id uint32) admin.HostStanding {
			h, _ := w.store.HostByID(id)
			return admin.HostStanding{View: standing[h.Name]}
		}},
		Firehose: admin.Firehose{Sources: func() []admin.Source {
			return []admin.Source{{URL: "wss://followed.example.com", Seq: 4711, Cursor: 4700}, {URL: "wss://relay.example.com", Seq: 0}}
		}},
	})
	w.add(t, alice)
	w.update(t, alice, func(b *store.Batch, r *store.Repo) { b.Rehost(r, "home.example.com:8443") })
	want := []hostStatus{
		{"home.example.com:8443", 0, 1, "active"}, {"failing.example.com", 0, 0, "offline"}, {"both.example.com", 0, 0, "offline"},
		{"throttled.example.com", 0, 0, "throttled"}, {"banned.example.com", 0, 0, "banned"}, {"followed.example.com", 4711, 0, "active"},
		{"relay.example.com", 0, 0, "active"}, {"idle.example.com", 0, 0, "idle"}, {"before.example.com", 0, 0, "offline"},
	}
	for _, h := range want {
		id, err := w.store.HostID(h.Hostname)
		if err != nil {
			t.Fatal(err)
		}
		if h.Hostname == "before.example.com" {
			if err := w.store.NoteHosts([]uint32{id}, func(_ uint32, row *store.HostRow) { row.Failing, row.LastSeen = 20, 10 }); err != nil {
				t.Fatal(err)
			}
		}
	}
	var list struct{ Hosts []hostStatus }
	w.get(t, "com.atproto.sync.listHosts", nil, &list)
	if diff := cmp.Diff(want, list.Hosts); diff != "" {
		t.Error(diff)
	}
	for _, h := range want {
		for _, name := range []string{h.Hostname, "https://" + h.Hostname, "HOME" + h.Hostname[4:]} {
			if name[:4] == "HOME" && h.Hostname[:4] != "home" {
				continue
			}
			var got hostStatus
			if w.get(t, "com.atproto.sync.getHostStatus", url.Values{"hostname": {name}}, &got); got != h {
				t.Errorf("%s: %+v, want %+v", name, got, h)
			}
		}
	}
	for name, error := range map[string]string{"other.example.com": "HostNotFound", "home.example.com": "HostNotFound", "": "InvalidRequest",
		"a b": "InvalidRequest", "https://home.example.com:8443/xrpc": "InvalidRequest", "home.example.com:99999": "InvalidRequest"} {
		w.refuses(t, "com.atproto.sync.getHostStatus", url.Values{"hostname": {name}}, 400, error, "")
	}
}
