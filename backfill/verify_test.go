package backfill_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/ingest/identity"
	"cistern/ingest/repo"
	"cistern/ingest/simnet"
	"cistern/store"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
)

// keyring is a directory that returns another key than the one that accounts sign with, and returns
// that one as a former key.
type keyring struct {
	backfill.Directory
	today *repo.Key
	keys  func(was identity.Identity) ([]*repo.Key, error)

	mu sync.Mutex
	at time.Time // mu guards: what KeysAt was asked for last
}

// Resolve returns the current key.
func (d *keyring) Resolve(ctx context.Context, did string) (identity.Identity, error) {
	id, err := d.Directory.Resolve(ctx, did)
	id.PublicKey, id.Key = d.today, d.today.DIDKey()
	return id, err
}

// KeysAt returns the former keys.
func (d *keyring) KeysAt(ctx context.Context, did string, at time.Time) ([]*repo.Key, error) {
	d.mu.Lock()
	d.at = at
	d.mu.Unlock()
	was, err := d.Directory.Resolve(ctx, did)
	if err != nil {
		return nil, err
	}
	return d.keys(was)
}

// TestFormerKey: the last commit of an account that moved and has not written since is signed with
// a key that its document no longer names. It is accepted from its own host only.
func TestFormerKey(t *testing.T) {
	t.Parallel()
	stranger, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		t.Fatal(err)
	}
	public, err := stranger.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	today, err := repo.ParseKey(public.DIDKey())
	if err != nil {
		t.Fatal(err)
	}
	knows := func(was identity.Identity) ([]*repo.Key, error) {
		return []*repo.Key{today, was.PublicKey}, nil
	}
	cases := []struct {
		name   string
		keys   func(was identity.Identity) ([]*repo.Key, error)
		fault  simnet.Fault
		synced bool
		kind   store.ErrorKind
	}{
		{name: "former key", keys: knows, synced: true},
		{name: "a key it never had", keys: func(identity.Identity) ([]*repo.Key, error) { return []*repo.Key{today}, nil }, kind: store.Generic},
		{name: "no former key", keys: func(identity.Identity) ([]*repo.Key, error) { return nil, nil }, kind: store.Generic},
		{name: "no history", keys: func(identity.Identity) ([]*repo.Key, error) { return nil, identity.ErrNotFound }, kind: store.Generic},
		{name: "no directory", keys: func(identity.Identity) ([]*repo.Key, error) { return nil, errors.New("broken") }, kind: store.Transport},
		{name: "forged", keys: knows, fault: simnet.Fault{Kind: simnet.BadSignature}, kind: store.Generic},
		{name: "from elsewhere", keys: knows, fault: simnet.Fault{Kind: simnet.Redirect}, kind: store.Generic},
	}
	for _, c := range cases {
		w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1, RecordsMedian: 20}})
		w.Stop()
		did := w.Net.DIDs()[0]
		if c.fault.Kind == simnet.Redirect {
			elsewhere := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				rw.Write(w.Net.Account(did).CAR())
			}))
			t.Cleanup(elsewhere.Close)
			c.fault.Location = elsewhere.URL
		}
		if c.fault.Kind != 0 {
			w.Net.Host(0).Inject(c.fault)
		}
		plc, err := identity.New(identity.Options{PLC: []string{w.Net.PLC()}, AllowPrivate: true, Now: w.Clock.Now})
		if err != nil {
			t.Fatal(err)
		}
		d := &keyring{Directory: plc, today: today, keys: c.keys}
		w.start(backfill.Options{Directory: d})
		w.Add(did)
		w.Settle(did)
		r := w.Row(did)
		if c.synced {
			if r.State != store.StateSynced || r.Verified != store.VerifiedFormerKey || r.Key != today.DIDKey() {
				t.Errorf("%s: %v %v %+v", c.name, r.State, r.Verified, r.Retry)
			}
			if !d.at.Equal(repo.TIDTime(r.Rev)) { // a rotated-out key must not sign newer commits
				t.Errorf("%s: keys of %v, want those of rev %s", c.name, d.at, r.Rev)
			}
			continue
		}
		says := map[store.ErrorKind]string{store.Generic: "signature", store.Transport: "former keys: broken"}[c.kind]
		if r.State != store.StateResync || r.Retry.Kind != c.kind || !strings.Contains(r.Retry.Error, says) || r.Ordinal != 0 {
			t.Errorf("%s: %v %+v", c.name, r.State, r.Retry)
		}
		if asked := !d.at.IsZero(); asked == (c.name == "from elsewhere") {
			t.Errorf("%s: keys were asked for: %v (%+v)", c.name, asked, r.Retry)
		}
	}
}

// TestMigratedKey: an account moves to another host under another key and writes nothing. First and
// later copies accept it, and the first commit under the new key is verified like any other.
func TestMigratedKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 2, Repos: 2, RecordsMedian: 20}})
	for i, did := range w.Net.DIDs() {
		a := w.Net.Account(did)
		if i == 1 {
			w.Add(did)
			w.Settle(did)
		}
		a.MigrateKey(w.Net.Host(1 - i))
		w.Add(did)
		w.Settle(did)
		w.Equal(did)
		if v := w.Row(did).Verified; v != store.VerifiedFormerKey {
			t.Errorf("account %d: verified %v", i, v)
		}
		if n := w.Net.PLCHost().Log().Requests["log/audit"]; n != i+1 {
			t.Errorf("account %d: its history was read %d times", i, n)
		}
		if _, err := a.Mutate(2); err != nil {
			t.Fatal(err)
		}
		w.Add(did)
		w.Settle(did)
		w.Equal(did)
		if v := w.Row(did).Verified; v != store.VerifiedFull {
			t.Errorf("account %d, after a commit: verified %v", i, v)
		}
	}
}

// TestRememberedDocument: a cached document is read again before a former key counts.
func TestRememberedDocument(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 2, Repos: 1, RecordsMedian: 20}})
	did := w.Net.DIDs()[0]
	w.Net.Account(did).MigrateKey(w.Net.Host(1))
	ident, err := w.Dir.Resolve(t.Context(), did)
	if err != nil {
		t.Fatal(err)
	}
	host, err := w.Store.HostID(strings.TrimPrefix(ident.PDS, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	w.Change(did, func(r *store.Repo) { // as a lookup leaves it whose host is busy
		r.State, r.Tracked, r.PDS, r.Key = store.StatePending, store.ByOperator, ident.PDS, ident.Key
		r.Pending = store.PendingKey{Host: host, Priority: store.PriorityOperator}
	})
	w.Run.Wake()
	w.Settle(did)
	w.Equal(did)
	if r, n := w.Row(did), w.Net.PLCHost().Log().Requests["did"]; r.Verified != store.VerifiedFormerKey || n != 2 {
		t.Errorf("verified %v, the document was read %d times", r.Verified, n)
	}
}
