package simnet_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/atproto/atcrypto"
	indigo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/bluesky-social/indigo/lex/util"
	"github.com/fxamacker/cbor/v2"
	"github.com/gorilla/websocket"
	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"

	"cistern/ingest/simnet"
)

// frame is one message as indigo's types read it.
type frame struct {
	kind string // message type; "error" for error frames
	did  string
	seq  int64
	time string

	commit  *comatproto.SyncSubscribeRepos_Commit
	account *comatproto.SyncSubscribeRepos_Account
	sync    *comatproto.SyncSubscribeRepos_Sync
	handle  string // of an #identity
	name    string // of an #info or an error
}

func decodeFrame(message []byte) (f frame, err error) {
	var header struct {
		Op int    `cbor:"op"`
		T  string `cbor:"t"`
	}
	d := cbor.NewDecoder(bytes.NewReader(message))
	if err := d.Decode(&header); err != nil {
		return f, err
	}
	r := bytes.NewReader(message[d.NumBytesRead():])
	f.kind = header.T
	switch {
	case header.Op == -1:
		var e struct{ Error, Message string }
		f.kind, err = "error", cbor.NewDecoder(r).Decode(&e)
		f.name = e.Error
		return f, err
	case header.T == "#commit":
		f.commit = new(comatproto.SyncSubscribeRepos_Commit)
		err = f.commit.UnmarshalCBOR(r)
		f.did, f.seq, f.time = f.commit.Repo, f.commit.Seq, f.commit.Time
	case header.T == "#sync":
		f.sync = new(comatproto.SyncSubscribeRepos_Sync)
		err = f.sync.UnmarshalCBOR(r)
		f.did, f.seq, f.time = f.sync.Did, f.sync.Seq, f.sync.Time
	case header.T == "#identity":
		var m comatproto.SyncSubscribeRepos_Identity
		err = m.UnmarshalCBOR(r)
		f.did, f.seq, f.time = m.Did, m.Seq, m.Time
		if m.Handle != nil {
			f.handle = *m.Handle
		}
	case header.T == "#account":
		f.account = new(comatproto.SyncSubscribeRepos_Account)
		err = f.account.UnmarshalCBOR(r)
		f.did, f.seq, f.time = f.account.Did, f.account.Seq, f.account.Time
	case header.T == "#info":
		var m comatproto.SyncSubscribeRepos_Info
		err = m.UnmarshalCBOR(r)
		f.name = m.Name
	default:
		return f, nil
	}
	if err == nil && r.Len() > 0 {
		err = fmt.Errorf("%d bytes behind a %s", r.Len(), f.kind)
	}
	return f, err
}

func mustDecode(t testing.TB, message []byte) frame {
	t.Helper()
	f, err := decodeFrame(message)
	if err != nil {
		t.Fatalf("decode %.60q: %v", message, err)
	}
	return f
}

// frames decodes what a host's stream keeps after a cursor.
func frames(t testing.TB, h *simnet.Host, cursor int64) []frame {
	t.Helper()
	var all []frame
	for _, m := range h.Messages(cursor) {
		all = append(all, mustDecode(t, m))
	}
	return all
}

// outline names frames, and the accounts by their number.
func outline(n *simnet.Network, all []frame) string {
	number := make(map[string]int)
	for i, did := range n.DIDs() {
		number[did] = i
	}
	var words []string
	for _, f := range all {
		words = append(words, fmt.Sprintf("%s%d", strings.TrimPrefix(f.kind, "#"), number[f.did]))
	}
	return strings.Join(words, " ")
}

func streamURL(h *simnet.Host, query string) string {
	return "ws" + strings.TrimPrefix(h.URL(), "http") + "/xrpc/com.atproto.sync.subscribeRepos" + query
}

func dial(t testing.TB, h *simnet.Host, query string) *websocket.Conn {
	t.Helper()
	conn, _, err := websocket.DefaultDialer.DialContext(t.Context(), streamURL(h, query), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func read(t testing.TB, conn *websocket.Conn) frame {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, message, err := conn.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	return mustDecode(t, message)
}

func readN(t testing.TB, conn *websocket.Conn, n int) []frame {
	t.Helper()
	all := make([]frame, n)
	for i := range all {
		all[i] = read(t, conn)
	}
	return all
}

// verifyCommit checks a #commit with indigo's code, and that its ops taken back lead to prevData, or
// to nothing for a first commit.
func verifyCommit(t testing.TB, c *comatproto.SyncSubscribeRepos_Commit, key string) {
	t.Helper()
	if err := checkCommit(c, key); err != nil {
		t.Errorf("commit %s %s: %v", c.Repo, c.Rev, err)
	}
}

func checkCommit(c *comatproto.SyncSubscribeRepos_Commit, key string) error {
	ctx := context.Background()
	if c.PrevData == nil {
		if c.Since != nil {
			return errors.New("since without prevData")
		}
		empty := mst.NewEmptyTree()
		none, err := empty.RootCID()
		if err != nil {
			return err
		}
		withPrev := *c
		link := (*util.LexLink)(none)
		withPrev.PrevData = link
		c = &withPrev
	}
	if c = netCommit(c); len(c.Ops) > 0 {
		if _, err := indigo.VerifyCommitMessage(ctx, c); err != nil {
			return err
		}
	}
	commit, root, err := indigo.LoadCommitFromCAR(ctx, bytes.NewReader(c.Blocks))
	if err != nil {
		return err
	}
	public, err := atcrypto.ParsePublicDIDKey(key)
	if err != nil {
		return err
	}
	if *root != cid.Cid(c.Commit) || commit.DID != c.Repo || commit.Rev != c.Rev {
		return errors.New("message and commit disagree")
	}
	if len(c.Ops) == 0 && commit.Data != cid.Cid(*c.PrevData) {
		return errors.New("a commit without changes has another tree")
	}
	return commit.VerifySignature(public)
}

// netCommit is the message with net changes for its operations, which is what indigo's code takes.
func netCommit(c *comatproto.SyncSubscribeRepos_Commit) *comatproto.SyncSubscribeRepos_Commit {
	changed := *c
	changed.Ops = nil
	for _, op := range c.Ops {
		i := slices.IndexFunc(changed.Ops, func(o *comatproto.SyncSubscribeRepos_RepoOp) bool { return o.Path == op.Path })
		if i < 0 {
			first := *op
			changed.Ops = append(changed.Ops, &first)
			continue
		}
		changed.Ops[i].Cid = op.Cid
	}
	changed.Ops = slices.DeleteFunc(changed.Ops, func(op *comatproto.SyncSubscribeRepos_RepoOp) bool {
		switch {
		case op.Cid == nil && op.Prev == nil:
			return true
		case op.Cid == nil:
			op.Action = "delete"
		case op.Prev == nil:
			op.Action = "create"
		default:
			op.Action = "update"
		}
		return op.Cid != nil && op.Prev != nil && *op.Cid == *op.Prev
	})
	return &changed
}

func TestMutationsMakeEvents(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 3, Repos: 2, Hosts: 2, Relays: 2, RecordsMedian: 5})
	a, from, to := n.Accounts()[0], n.Host(0), n.Host(1)
	commit := func() {
		if _, err := a.Mutate(2); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		name          string
		do            func()
		relay, at, by string // events at the relays and at the two hosts
	}{
		{"commit", commit, "commit0", "commit0", ""},
		{"empty commit", func() { _, _ = a.Commit() }, "commit0", "commit0", ""},
		{"rotation", func() { a.RotateKey() }, "identity0 commit0", "identity0 commit0", ""},
		{"handle", func() { a.SetHandle("new.sim.test") }, "identity0", "identity0", ""},
		{"sync", a.Sync, "sync0", "sync0", ""},
		{"takedown", func() { a.SetStatus(simnet.Takendown) }, "account0", "account0", ""},
		{"no news", func() { a.SetStatus(simnet.Takendown) }, "", "", ""},
		{"hidden commit", commit, "", "", ""},
		{"appeal, after a commit", func() { a.SetStatus(simnet.Active) }, "account0 sync0", "account0 sync0", ""},
		{"suspension", func() { a.SetStatus(simnet.Suspended); a.SetStatus(simnet.Active) }, "account0 account0", "account0 account0", ""},
		{"deactivation", func() { a.SetStatus(simnet.Deactivated) }, "account0", "account0", ""},
		{"reactivation", func() { a.SetStatus(simnet.Active) }, "account0 identity0 sync0", "account0 identity0 sync0", ""},
		{"migration", func() { a.Migrate(to) }, "account0 identity0 sync0", "account0", "account0 identity0 sync0"},
		{"commit there", commit, "commit0", "", "commit0"},
		{"migration with a new key", func() { a.MigrateKey(from) }, "account0 identity0 sync0", "account0 identity0 sync0", "account0"},
		{"odd status", func() { a.Announce(false, "throttled") }, "account0", "account0", ""},
		{"same identity", a.AnnounceIdentity, "identity0", "identity0", ""},
		{"deletion", func() { a.SetStatus(simnet.Deleted) }, "account0", "account0", ""},
		{"tombstone", a.Tombstone, "", "", ""},
		{"new account", func() { n.AddAccount(to) }, "identity2 account2 commit2", "", "identity2 account2 commit2"},
	} {
		hosts := []*simnet.Host{n.RelayHost(), n.Relays()[1], from, to}
		var heads []int64
		for _, h := range hosts {
			heads = append(heads, h.Head())
		}
		row.do()
		for i, want := range []string{row.relay, row.relay, row.at, row.by} {
			if got := outline(n, frames(t, hosts[i], heads[i])); got != want {
				t.Errorf("%s: host %d says %q, want %q", row.name, i, got, want)
			}
		}
	}
}

func TestCommitShapes(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, simnet.Options{Seed: 3, Repos: 1, Hosts: 1, Empty: 1})
	a, relay := n.Accounts()[0], n.RelayHost()
	post := simnet.EncodeRecord(simnet.Post("hello"))
	other := simnet.EncodeRecord(simnet.Post("other"))
	// Paths by layer of the tree, so that the root rises and falls.
	var layers [4][]string
	for i := 0; len(layers[0]) < 3 || len(layers[1]) < 3 || len(layers[2]) < 3 || len(layers[3]) < 3; i++ {
		path := fmt.Sprintf("com.example.shape/%d", i)
		if h := mst.HeightForKey([]byte(path)); h < len(layers) {
			layers[h] = append(layers[h], path)
		}
	}
	put := func(paths ...string) (w []simnet.Write) {
		for _, p := range paths {
			w = append(w, simnet.Write{Path: p, Record: post})
		}
		return w
	}
	drop := func(paths ...string) (w []simnet.Write) {
		for _, p := range paths {
			w = append(w, simnet.Write{Path: p})
		}
		return w
	}
	low, top := layers[0], layers[3]
	for i, writes := range [][]simnet.Write{
		put(low[0]),  // first key
		drop(low[0]), // last key, the tree is empty
		nil,          // empty commit of an empty tree
		put(top[0]),  // first key, high up
		put(low[0]),  // nodes without entries in between
		drop(top[0]), // the root falls by three
		put(top[0], top[1]),
		append(drop(top[0]), put(top[2], layers[1][0])...),
		{{Path: low[0], Record: other}},                                // update
		{{Path: low[0], Record: other}},                                // update to the same: an empty commit
		append(put(low[1]), drop(low[1])...),                           // create and delete: an empty commit
		append(put(low[1]), simnet.Write{Path: low[1], Record: other}), // twice in one commit
		{{Path: low[0]}, {Path: low[0], Record: post}},                 // delete and create: an update
		append(append(drop(top[1], top[2], layers[1][0], low[0], low[1]), put(layers[2][:3]...)...), put(low[:50]...)...), // all at once
	} {
		head := relay.Head()
		if _, err := a.Commit(writes...); err != nil {
			t.Fatal(err)
		}
		all := frames(t, relay, head)
		if len(all) != 1 || all[0].kind != "#commit" {
			t.Fatalf("commit %d made %d frames", i, len(all))
		}
		verifyCommit(t, all[0].commit, a.Truth().Key)
	}
}

func TestNewAccountIsToldInFull(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 3, Repos: 1, Hosts: 1, RecordsMedian: 900, RecordsMax: 1000})
	head := n.RelayHost().Head()
	a := n.AddAccount(n.Host(0))
	truth := a.Truth()
	var records int
	var rev, since *string
	all := frames(t, n.RelayHost(), head)
	for i, f := range all[2:] {
		c := f.commit
		verifyCommit(t, c, truth.Key)
		if (c.Since == nil) != (i == 0) || (i > 0 && *c.Since != *since) {
			t.Errorf("commit %d since %v", i, c.Since)
		}
		since, rev = &c.Rev, &c.Rev
		records += len(c.Ops)
	}
	if len(all) < 4 || records != len(truth.Records) || *rev != truth.Rev {
		t.Errorf("%s: %d of %d records, rev %s of %s", outline(n, all), records, len(truth.Records), *rev, truth.Rev)
	}
	checkAccount(t, a)
}

func TestLargeCommitIsASync(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, simnet.Options{Repos: 1, Hosts: 1})
	head := n.RelayHost().Head()
	for _, size := range []int{200, 201} {
		if _, err := n.Accounts()[0].Mutate(size); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.Accounts()[0].Put("com.example.big/1", map[string]any{"text": strings.Repeat("x", 2<<20)}); err != nil {
		t.Fatal(err)
	}
	if got := outline(n, frames(t, n.RelayHost(), head)); got != "commit0 sync0 sync0" {
		t.Error(got)
	}
}

func TestCursors(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 4, Repos: 2, Hosts: 1, Relays: 2, RecordsMedian: 3})
	a, relay := n.Accounts()[0], n.RelayHost()
	base := relay.Head()
	for range 10 {
		_, _ = a.Mutate(1)
	}
	if got := readN(t, dial(t, relay, "?cursor=0"), 10); got[0].seq != base+1 || got[9].seq != base+10 {
		t.Errorf("from the start: %d to %d", got[0].seq, got[9].seq)
	}
	if got := read(t, dial(t, relay, fmt.Sprintf("?cursor=%d", base+7))); got.seq != base+8 {
		t.Errorf("after %d: %d", base+7, got.seq)
	}
	live := dial(t, relay, "")
	atHead := dial(t, relay, fmt.Sprintf("?cursor=%d", base+10))
	if err := relay.WaitConnections(t.Context(), 4); err != nil {
		t.Fatal(err)
	}
	_, _ = a.Mutate(1)
	for _, conn := range []*websocket.Conn{live, atHead} {
		if got := read(t, conn); got.seq != base+11 {
			t.Errorf("from now on: %d", got.seq)
		}
	}
	relay.SetWindow(4)
	if got := relay.Messages(0); len(got) != 4 {
		t.Errorf("%d messages kept", len(got))
	}
	for _, cursor := range []int64{0, base + 6} {
		conn := dial(t, relay, fmt.Sprintf("?cursor=%d", cursor))
		got := readN(t, conn, 5)
		if got[0].kind != "#info" || got[0].name != "OutdatedCursor" || got[1].seq != base+8 || got[4].seq != base+11 {
			t.Errorf("cursor %d: %+v", cursor, got)
		}
	}
	if got := read(t, dial(t, relay, fmt.Sprintf("?cursor=%d", base+7))); got.seq != base+8 {
		t.Errorf("a cursor at the edge of the window: %s %d", got.kind, got.seq)
	}
	for _, h := range []*simnet.Host{relay, n.Host(0)} { // a cursor of another relay is in the future here
		conn := dial(t, h, fmt.Sprintf("?cursor=%d", n.Relays()[1].Head()))
		if got := read(t, conn); got.kind != "error" || got.name != "FutureCursor" {
			t.Errorf("cursor beyond the head: %+v", got)
		}
		if _, _, err := conn.ReadMessage(); !websocket.IsCloseError(err, websocket.ClosePolicyViolation) {
			t.Errorf("after FutureCursor: %v", err)
		}
	}
	if r := get(t, relay.URL()+"/xrpc/com.atproto.sync.subscribeRepos?cursor=x"); r.status != http.StatusBadRequest {
		t.Errorf("cursor x: %d", r.status)
	}
}

func TestConnections(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 4, Repos: 2, Hosts: 1, RecordsMedian: 3})
	relay := n.RelayHost()
	for _, end := range []func(){
		func() {
			if dropped := relay.DropConnections(); dropped != 2 {
				t.Errorf("dropped %d", dropped)
			}
		},
		func() { _ = relay.Down() },
	} {
		one, two := dial(t, relay, ""), dial(t, relay, "?cursor=0")
		if err := relay.WaitConnections(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		_, _ = n.Accounts()[0].Mutate(1)
		if err := relay.WaitDelivered(t.Context()); err != nil {
			t.Fatal(err)
		}
		pong := make(chan string, 1)
		one.SetPongHandler(func(data string) error { pong <- data; return nil })
		_ = one.WriteControl(websocket.PingMessage, []byte("hey"), time.Now().Add(time.Second))
		read(t, one)
		waitFor(t, func() bool {
			_ = one.SetReadDeadline(time.Now().Add(2 * time.Second))
			go func() { _, _, _ = one.ReadMessage() }()
			return <-pong == "hey"
		})
		end()
		readUntilBroken(t, two)
		waitFor(t, func() bool { return relay.Connections() == 0 })
		if err := relay.Up(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if relay.WaitConnections(ctx, 1) == nil || relay.WaitDelivered(ctx) == nil {
		t.Error("a stream without a reader was reported as read")
	}
}

func readUntilBroken(t testing.TB, conn *websocket.Conn) {
	t.Helper()
	for {
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, _, err := conn.ReadMessage(); err != nil {
			var timeout interface{ Timeout() bool }
			if errors.As(err, &timeout) && timeout.Timeout() {
				t.Error("the connection was not broken")
			}
			return
		}
	}
}

func TestSlowConsumerIsSentOff(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 4, Repos: 1, Hosts: 1, RecordsMedian: 3})
	relay := n.RelayHost()
	lag := relay.InjectStream(simnet.StreamFault{Kind: simnet.StreamLag, Delay: time.Hour})
	_, _ = n.Accounts()[0].Mutate(1)
	conn := dial(t, relay, "?cursor=0")
	waitFor(t, func() bool { return lag.Fired() == 1 })
	relay.SetWindow(0)
	lag.Clear()
	if got := read(t, conn); got.kind != "error" || got.name != "ConsumerTooSlow" {
		t.Errorf("%+v", got)
	}
}

func TestStreamsAreDeterministic(t *testing.T) {
	t.Parallel()
	var logs [2][][]byte
	for i := range logs {
		n := startNetwork(t, simnet.Options{Seed: 9, Repos: 4, Hosts: 2, RecordsMedian: 5})
		for _, a := range n.Accounts() {
			_, _ = a.Mutate(3)
			a.SetHandle("x" + a.Handle())
			a.RotateKey()
			a.Migrate(n.Host(1))
		}
		n.AddAccount(n.Host(0))
		for _, h := range append(n.Hosts(), n.Relays()...) {
			logs[i] = append(logs[i], h.Messages(0)...)
		}
	}
	if !slices.EqualFunc(logs[0], logs[1], bytes.Equal) || len(logs[0]) < 20 {
		t.Errorf("%d and %d messages", len(logs[0]), len(logs[1]))
	}
}

// TestTimesFollowOneAnother wants, per account, the times of events to rise, and those of commits not before them.
func TestTimesFollowOneAnother(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 9, Repos: 1, Hosts: 2, RecordsMedian: 5})
	a := n.Accounts()[0]
	for i := range 20 {
		_, _ = a.Mutate(1)
		a.SetHandle(fmt.Sprintf("h%d.sim.test", i))
		a.AnnounceIdentity()
		a.MigrateKey(n.Host(i % 2))
	}
	before := time.Time{}
	for i, f := range frames(t, n.RelayHost(), 0) {
		at, err := syntax.ParseDatetimeTime(f.time)
		if err != nil || at.Before(before) || (f.kind != "#commit" && !at.After(before)) {
			t.Errorf("event %d, %s, at %s after %s: %v", i, f.kind, at, before, err)
		}
		before = at
	}
}

// TestConcurrentUse wants the order of each account kept, and nothing lost, while all things happen at once.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 5, Repos: 6, Hosts: 2, Relays: 2, RecordsMedian: 5})
	relay := n.RelayHost()
	base := relay.Head()
	conn := dial(t, relay, fmt.Sprintf("?cursor=%d", base))
	var g errgroup.Group
	for _, a := range n.Accounts() {
		g.Go(func() error {
			for i := range 30 {
				if _, err := a.Mutate(2); err != nil {
					return err
				}
				if i%10 == 0 {
					a.MigrateKey(n.Host(i / 10 % 2))
					n.AddAccount(n.Host(i / 10 % 2))
				}
			}
			return nil
		})
	}
	g.Go(func() error {
		for range 10 {
			get(t, n.Relay()+"/xrpc/com.atproto.sync.listRepos")
			n.Relays()[1].DropConnections()
			in := n.Relays()[1].InjectStream(simnet.StreamFault{Kind: simnet.StreamWrongDID, Count: 1})
			in.Clear()
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	revs := make(map[string]string)
	for i, f := range readN(t, conn, int(relay.Head()-base)) {
		if f.seq != base+int64(i)+1 {
			t.Fatalf("seq %d at place %d", f.seq, i)
		}
		if f.kind == "#commit" {
			if since := f.commit.Since; since != nil && revs[f.did] != "" && *since != revs[f.did] {
				t.Errorf("commit %s %s since %s after %s", f.did, f.commit.Rev, *since, revs[f.did])
			}
			revs[f.did] = f.commit.Rev
		}
	}
	for _, truth := range n.Truths() {
		if truth.Rev != revs[truth.DID] {
			t.Errorf("%s at %s, told %s", truth.DID, truth.Rev, revs[truth.DID])
		}
	}
}
