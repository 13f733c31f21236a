package hosts_test

import (
	"testing"
	"time"

	"cistern/backfill/hosts"
	"cistern/backfill/pace"
)

// TestPermitOfQuery: a permit includes one request. What was not sent is refunded when the permit
// is given back, once, and a query that takes the place of the included fetch is charged as a
// query.
func TestPermitOfQuery(t *testing.T) {
	t.Parallel()
	c := &clock{now: time.Unix(1_800_000_000, 0)}
	rules := pace.Rules{{Glob: "*", Override: pace.Override{PerHour: 1}}}
	table, id := newTable(t, hosts.Options{Rules: rules}, c)
	p, soon := table.Acquire(id)
	if p == nil || !soon || p.Host() != id || table.Free() != 31 {
		t.Fatalf("%v, %v, %d permits are free", p, soon, table.Free())
	}
	if p, soon := table.Acquire(id); p != nil || soon {
		t.Errorf("one an hour, and a second permit: %v, %v", p, soon)
	}
	p.Close() // unused
	p.Close()
	if table.Free() != 32 || table.Standing(id).Running != 0 {
		t.Errorf("%d permits are free, %+v", table.Free(), table.Standing(id))
	}
	if p, _ = table.Acquire(id); p == nil {
		t.Fatal("what was not spent is not refunded")
	}
	if err := hosts.Spend(t.Context(), p, pace.Query); err != nil {
		t.Error(err)
	}
	if err := hosts.Spend(t.Context(), p, pace.Query); !isBusy(err) {
		t.Errorf("a second request within the hour: %v", err)
	}
	p.Leave()
	if table.Free() != 31 || table.Standing(id).Running != 0 {
		t.Errorf("after the answer %d permits are free, %+v", table.Free(), table.Standing(id))
	}
	p.Close()
	if p, soon := table.Acquire(id); p != nil || soon || table.Free() != 32 {
		t.Errorf("a request that was sent is refunded: %v, %v, %d", p, soon, table.Free())
	}
}

// TestFlush: what is learnt of a host is in its row once.
func TestFlush(t *testing.T) {
	t.Parallel()
	table, id := newTable(t, hosts.Options{}, nil)
	p, _ := table.Acquire(id)
	p.Received(1000)
	p.Fetched()
	p.Note(pace.Outcome{Answered: true}, "")
	p.Close()
	if now := table.Standing(id); now.Bytes != 1000 || now.Repos != 1 {
		t.Errorf("it stands as %+v", now)
	}
	for range 2 {
		if err := table.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	row, _ := hosts.StoreOf(table).HostByID(id)
	if row.Bytes != 1000 || row.Repos != 1 || row.LastSeen == 0 || row.Failing != 0 {
		t.Errorf("its row is %+v", row)
	}
}

// TestEvict: a full table takes up another host in the place of an idle one. A host that
// repositories wait for, or of which a permit is held, keeps its place.
func TestEvict(t *testing.T) {
	t.Parallel()
	c := &clock{now: time.Unix(1_800_000_000, 0)}
	table, first := newTable(t, hosts.Options{}, c)
	idle, _ := table.Acquire(first)
	idle.Close()
	held, _ := table.Acquire(first + 1)
	id := first + 2
	for ; id < first+hosts.HostsMax+1; id++ { // ids that no store gave: of hosts with no limits
		if !table.Offer(id) {
			t.Fatalf("host %d of %d has no place", id-first+1, hosts.HostsMax)
		}
	}
	if hosts.Knows(table, first) {
		t.Error("the idle host has a place")
	}
	if table.Offer(id) {
		t.Error("a host in use lost its place")
	}
	held.Close()
	if table.Offer(id) {
		t.Error("all hosts are looked at twice within 50 ms")
	}
	c.advance(time.Second)
	if !table.Offer(id) || hosts.Knows(table, first+1) {
		t.Error("the place of an idle host is not given away")
	}
}
