package simnet_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"

	"cistern/ingest/repo"
	"cistern/ingest/simnet"
)

// follower applies the events of a stream to the state of one account.
type follower struct {
	rev, data, status, handle string
	records                   map[string]string // nil until all are known
	unread                    bool              // the head moved unseen: a #sync said so
}

// follow applies a whole stream, and verifies every commit with the key that the PLC log gives for
// its time.
func follow(t testing.TB, n *simnet.Network, h *simnet.Host, start map[string]*follower) map[string]*follower {
	t.Helper()
	keys := make(map[string][]auditEntry)
	for _, f := range frames(t, h, 0) {
		now := start[f.did]
		if now == nil {
			now = &follower{status: "active", records: make(map[string]string)}
			start[f.did] = now
		}
		switch f.kind {
		case "#account":
			now.status = "active"
			if !f.account.Active {
				now.status = *f.account.Status
			}
		case "#identity":
			now.handle = f.handle
		case "#sync":
			if f.sync.Rev < now.rev {
				t.Errorf("sync of %s goes back to %s", f.did, f.sync.Rev)
			}
			// A host that imported the repository names another rev for the commit that was told.
			commit, err := repo.ParseCommit(firstBlock(f.sync.Blocks))
			now.unread = now.unread || err != nil || commit.Rev != now.rev
		case "#commit":
			if keys[f.did] == nil {
				keys[f.did] = getJSON[[]auditEntry](t, n.PLC()+"/"+f.did+"/log/audit", 200)
			}
			now.commit(t, f, keyAt(keys[f.did], f.commit.Rev))
		default:
			t.Errorf("a %q", f.kind)
		}
	}
	return start
}

func (now *follower) commit(t testing.TB, f frame, key string) {
	t.Helper()
	c := f.commit
	verifyCommit(t, c, key)
	if now.unread {
		t.Errorf("commit %s %s after a commit that was not told", f.did, c.Rev)
	}
	since, prev := "", ""
	if c.Since != nil {
		since, prev = *c.Since, c.PrevData.String()
	}
	if since != now.rev || prev != now.data || now.status != "active" {
		t.Errorf("commit %s %s since %s of %s, which was at %s of %s, %s", f.did, c.Rev, since, prev, now.rev, now.data, now.status)
	}
	before := maps.Clone(now.records)
	for _, op := range c.Ops {
		if (op.Prev != nil && op.Prev.String() != before[op.Path]) || (op.Prev == nil && before[op.Path] != "") {
			t.Errorf("commit %s %s: prev of %s", f.did, c.Rev, op.Path)
		}
		delete(now.records, op.Path)
		if op.Cid != nil {
			now.records[op.Path] = op.Cid.String()
		}
	}
	commit, _ := readCommit(t, c.Blocks)
	now.rev, now.data = c.Rev, commit
}

func firstBlock(car []byte) []byte {
	spans := simnet.Spans(car)
	return car[spans[0].Data:spans[0].End]
}

// readCommit gives the data CID of a CAR's commit.
func readCommit(t testing.TB, car []byte) (string, int) {
	t.Helper()
	spans := simnet.Spans(car)
	c, err := repo.ParseCommit(car[spans[0].Data:spans[0].End])
	if err != nil {
		t.Fatal(err)
	}
	return c.Data.String(), len(spans)
}

type auditEntry struct {
	DID, CID, CreatedAt string
	Nullified           bool
	Operation           struct {
		Type, Prev, Sig     string
		AlsoKnownAs         []string
		VerificationMethods map[string]string
		Services            map[string]struct{ Type, Endpoint string }
	}
}

// keyAt is the key that was valid at a rev.
func keyAt(log []auditEntry, rev string) (key string) {
	at := syntax.TID(rev).Time()
	for _, e := range log {
		if created, _ := syntax.ParseDatetimeTime(e.CreatedAt); created.Before(at) && e.Operation.Type == "plc_operation" {
			key = e.Operation.VerificationMethods["atproto"]
		}
	}
	return key
}

func begin(n *simnet.Network) map[string]*follower {
	start := make(map[string]*follower)
	for _, truth := range n.Truths() {
		start[truth.DID] = &follower{rev: truth.Rev, data: truth.Data.String(), status: "active", handle: truth.Handle, records: truthText(truth)}
	}
	return start
}

func TestRandomHistoriesFold(t *testing.T) {
	t.Parallel()
	steps := 600
	if testing.Short() {
		steps = 100
	}
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			n := startNetwork(t, simnet.Options{Seed: seed, Repos: 8, Hosts: 3, Relays: 2, RecordsMedian: 30, Empty: 2})
			start := begin(n)
			weights := simnet.DefaultWeights()
			weights.WritesMax, weights.Former, weights.Decide = 8<<seed, 0, 0 // what is told is the truth
			history := n.History(seed, weights)
			kinds := make(map[string]int)
			for range steps {
				kinds[history.Step().Kind]++
			}
			if kinds["none"] > 0 || (len(kinds) != 13 && !testing.Short()) {
				t.Errorf("kinds %v", kinds)
			}
			follow(t, n, n.RelayHost(), start)
			for _, truth := range n.Truths() {
				got, want := start[truth.DID], &follower{
					rev: truth.Rev, data: truth.Data.String(), status: string(truth.Status), handle: truth.Handle, records: truthText(truth),
				}
				if diff := cmp.Diff(want, got, cmp.AllowUnexported(follower{})); diff != "" {
					t.Errorf("account %s (-truth +stream): %s", truth.DID, diff)
				}
			}
			one, two := n.Relays()[0], n.Relays()[1]
			if a, b := outline(n, frames(t, one, 0)), outline(n, frames(t, two, 0)); a != b {
				t.Error("two relays differ")
			}
			for _, h := range n.Hosts() {
				if len(h.Messages(0)) == 0 {
					t.Error("a host has nothing to say")
				}
			}
		})
	}
}

func TestHistoriesAreDeterministic(t *testing.T) {
	t.Parallel()
	var logs [3][][]byte
	for i := range logs {
		n := startNetwork(t, simnet.Options{Seed: 1, Repos: 6, Hosts: 2, RecordsMedian: 5})
		n.History(uint64(i/2), simnet.Weights{BurstMax: 5}).Run(300)
		logs[i] = n.RelayHost().Messages(0)
	}
	if !slices.EqualFunc(logs[0], logs[1], bytes.Equal) {
		t.Error("the same seed, another history")
	}
	if slices.EqualFunc(logs[0], logs[2], bytes.Equal) {
		t.Error("another seed, the same history")
	}
}

func TestWeights(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 1, Repos: 3, Hosts: 1, RecordsMedian: 5})
	n.History(1, simnet.Weights{Commit: 1, Handle: 1, Migrate: 1}).Run(50) // one host: nowhere to go
	got := outline(n, frames(t, n.RelayHost(), 0))
	if commits := strings.Count(got, "commit"); commits < 10 || commits+strings.Count(got, "identity") != 50 {
		t.Error(got)
	}
}

// TestAuditLog wants the PLC directory's log to tell of every change, between the revs before and after it.
func TestAuditLog(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 6, Repos: 2, Hosts: 2, RecordsMedian: 5})
	a := n.Accounts()[0]
	type state struct{ key, host, handle, rev string }
	now := func() state {
		truth := a.Truth()
		return state{truth.Key, truth.Host, truth.Handle, truth.Rev}
	}
	states := []state{now()}
	for _, change := range []func(){
		func() { a.RotateKey() },
		func() { a.SetHandle("b.sim.test") },
		func() { a.Migrate(n.Host(1)) },
		func() { a.MigrateKey(n.Host(0)) },
	} {
		change()
		states = append(states, now())
		_, _ = a.Mutate(1)
	}
	a.Tombstone()
	a.Tombstone()
	log := getJSON[[]auditEntry](t, n.PLC()+"/"+a.DID()+"/log/audit", 200)
	if len(log) != len(states)+1 {
		t.Fatalf("%d operations: %+v", len(log), log)
	}
	prev, times := "", []time.Time(nil)
	for i, e := range log {
		at, err := syntax.ParseDatetimeTime(e.CreatedAt)
		c, cidErr := cid.Decode(e.CID)
		sig, sigErr := base64.RawURLEncoding.DecodeString(e.Operation.Sig)
		if err != nil || cidErr != nil || sigErr != nil || len(sig) != 64 || e.Operation.Prev != prev || e.DID != a.DID() || e.Nullified {
			t.Errorf("operation %d: %+v", i, e)
		}
		prev, times = c.String(), append(times, at)
		if i == len(states) {
			if e.Operation.Type != "plc_tombstone" {
				t.Errorf("the last: %+v", e)
			}
			break
		}
		op, want := e.Operation, states[i]
		got := state{op.VerificationMethods["atproto"], op.Services["atproto_pds"].Endpoint, strings.TrimPrefix(op.AlsoKnownAs[0], "at://"), want.rev}
		if got != want || op.Type != "plc_operation" {
			t.Errorf("operation %d: %+v, want %+v", i, got, want)
		}
	}
	for i, s := range states {
		if rev := syntax.TID(s.rev).Time(); i < 2 && !rev.After(times[i]) || !rev.Before(times[i+1]) {
			t.Errorf("rev of %s, operations at %s and %s", rev, times[i], times[i+1])
		}
	}
	get404 := getJSON[map[string]string](t, n.PLC()+"/did:plc:aaaaaaaaaaaaaaaaaaaaaaaa/log/audit", 404)
	if get404["message"] == "" || n.PLCHost().Log().Requests["log/audit"] != 2 {
		t.Error(get404, n.PLCHost().Log().Requests)
	}
}

// TestMigratedButNotWritten has a repository with a newest commit that only the previous key
// verifies.
func TestMigratedButNotWritten(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 6, Repos: 1, Hosts: 2, RecordsMedian: 5})
	a := n.Accounts()[0]
	before := a.Truth()
	a.MigrateKey(n.Host(1))
	after := a.Truth()
	if after.Key == before.Key || after.Host == before.Host || after.Rev != before.Rev || after.Commit != before.Commit {
		t.Errorf("%+v after %+v", after, before)
	}
	r := get(t, repoURL(a))
	readCAR(t, r.body, a.DID(), before.Key)
	log := getJSON[[]auditEntry](t, n.PLC()+"/"+a.DID()+"/log/audit", 200)
	if got := keyAt(log, after.Rev); got != before.Key {
		t.Errorf("key at the rev: %s, want %s", got, before.Key)
	}
}

func TestGateLetsCommitsHappenDuringAFetch(t *testing.T) {
	t.Parallel()
	n, a := faultNetwork(t)
	before := a.CAR()
	gate := n.Host(0).Inject(simnet.Fault{Kind: simnet.Gate, Count: 1, Delay: time.Millisecond, Hook: func() { _, _ = a.Mutate(3) }})
	if r := get(t, repoURL(a)); string(r.body) != string(before) || gate.Fired() != 1 || string(a.CAR()) == string(before) {
		t.Errorf("through the gate: status %d, %d bytes", r.status, len(r.body))
	}
	if r := get(t, repoURL(a)); string(r.body) != string(a.CAR()) {
		t.Error("after the gate")
	}
	n.Host(0).Inject(simnet.Fault{Kind: simnet.Gate, Delay: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if r := getContext(t, ctx, repoURL(a), nil); r.err == nil {
		t.Error("the gate opened early")
	}
}

func BenchmarkHistory(b *testing.B) {
	n := startNetwork(b, simnet.Options{Seed: 1, Repos: 100, RecordsMedian: 40})
	history := n.History(1, simnet.Weights{})
	for b.Loop() {
		history.Step()
	}
}
