package main

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"cistern/cmd/cistern/command"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestVerifyRepairs damages the store of a stopped daemon: a body is changed, a record lost and
// another added. The operation verify names them, the repositories are fetched again, and the store
// is equal to the network.
func TestVerifyRepairs(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 23, Repos: 8, Hosts: 2})
	x := newTestIndex(t)
	args := x.args(n)
	stop := x.start(t, args)
	x.track(t, n.Accounts()...)
	whole := map[string]int64{"synced": 8, "records": records(n.Accounts())}
	x.settle(t, whole)
	verify := func() (string, error) {
		var out bytes.Buffer
		a := &app{Process: command.Process{Stdout: &out, Stderr: &out, Environ: []string{"CISTERN_ADMIN=" + x.admin}}}
		err := a.run(t.Context(), []string{"maintain", "run", "verify"})
		return out.String(), err
	}
	if out, err := verify(); err != nil || !strings.Contains(out, "verify done") {
		t.Errorf("before the damage: %s, %v", out, err)
	}
	stop()
	harmed := x.damage(t)
	stop = x.start(t, args)
	out, err := verify()
	if err == nil || !strings.Contains(err.Error(), "in 3 repositories, the first: "+harmed[0]) {
		t.Errorf("after the damage: %s, %v", out, err)
	}
	x.settle(t, whole)
	if out, err := verify(); err != nil || !strings.Contains(out, "verify done") {
		t.Errorf("after the repair: %s, %v", out, err)
	}
	stop()
	x.wantStore(t, n.Accounts())
}

// damage changes a body, deletes a record row and adds one, each in another repository. It returns
// the DIDs in the order of verify.
func (x *testIndex) damage(t *testing.T) (dids []string) {
	t.Helper()
	s, err := openForCheck(x.dir, newLogger(io.Discard, 0))
	if err != nil {
		t.Fatal(err)
	}
	rows, _, err := s.Repos("", 3, func(r *store.Repo) bool { return r.Records > 1 })
	if err != nil || len(rows) != 3 {
		t.Fatalf("%d repositories, %v", len(rows), err)
	}
	paths := make([][]byte, len(rows))
	for i, r := range rows {
		dids = append(dids, r.DID)
		all, err := s.Rows(r.Ordinal)
		if err != nil || !all.Next() {
			t.Fatal("no record", err)
		}
		paths[i] = bytes.Clone(all.Row().Path)
		if err := all.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	storetest.Damage(t, vfs.Default, x.dir, func(d *storetest.Damager) {
		d.Edit(d.Key('b', rows[0].Ordinal, []byte{0, 0, 0, 0}), func(v []byte) []byte {
			v[len(v)-1] ^= 1
			return v
		})
		d.Delete(d.Key('r', rows[1].Ordinal, paths[1]))
		d.Edit(d.Key('r', rows[2].Ordinal, paths[2]), func(v []byte) []byte {
			d.Add(d.Key('r', rows[2].Ordinal, append(paths[2], 'x')), v)
			return v
		})
	})
	return dids
}
