package simnet_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/gorilla/websocket"

	"cistern/ingest/simnet"
)

// streamWorld has three accounts: 0 and 2 on one host, 1 on another. Its relay met one commit of each.
func streamWorld(t testing.TB) *simnet.Network {
	n := startNetwork(t, simnet.Options{Seed: 11, Repos: 3, Hosts: 2, Relays: 2, RecordsMedian: 100, RecordsMax: 120})
	for _, a := range n.Accounts() {
		post(t, a, "first")
	}
	return n
}

func post(t testing.TB, a *simnet.Account, text string) {
	t.Helper()
	if _, err := a.Put("app.bsky.feed.post/"+a.NextTID(), simnet.Post(text)); err != nil {
		t.Fatal(err)
	}
}

// lenient decodes what may be no frame.
func lenient(h *simnet.Host, cursor int64) []frame {
	var all []frame
	for _, m := range h.Messages(cursor) {
		f, err := decodeFrame(m)
		if err != nil {
			f.kind = "garbage"
		}
		all = append(all, f)
	}
	return all
}

func TestEventFaults(t *testing.T) {
	t.Parallel()
	n := streamWorld(t)
	relay, accounts := n.RelayHost(), n.Accounts()
	post3 := func() {
		for _, a := range accounts {
			post(t, a, "hello")
		}
	}
	for _, row := range []struct {
		fault simnet.StreamFault
		do    func()
		want  string
		check func(all []frame) bool
	}{
		{fault: simnet.StreamFault{Kind: simnet.StreamDuplicate}, want: "commit0 commit0 commit1 commit1 commit2 commit2",
			check: func(all []frame) bool { return all[0].seq < all[1].seq && all[0].commit.Rev == all[1].commit.Rev }},
		{fault: simnet.StreamFault{Kind: simnet.StreamDuplicate, Count: 1, Ahead: 2}, want: "commit0 commit1 commit2 commit0"},
		{fault: simnet.StreamFault{Kind: simnet.StreamReorder, Count: 1}, want: "commit1 commit0 commit2"},
		{fault: simnet.StreamFault{Kind: simnet.StreamReorder, Count: 1, Ahead: 2}, want: "commit1 commit2 commit0"},
		{fault: simnet.StreamFault{Kind: simnet.StreamReorder}, want: "commit1 commit0"}, // the third waits until Settle
		// Those of one account keep their order.
		{fault: simnet.StreamFault{Kind: simnet.StreamReorder, Count: 1}, do: func() { post3(); post3() },
			want: "commit1 commit0 commit2 commit0 commit1 commit2"},
		{fault: simnet.StreamFault{Kind: simnet.StreamReorder, Count: 1, Ahead: 9}, do: func() { post3(); post3() },
			want: "commit1 commit2 commit0 commit0 commit1 commit2"},
		{fault: simnet.StreamFault{Kind: simnet.StreamGap, DID: accounts[1].DID()}, want: "commit0 commit2"},
		{fault: simnet.StreamFault{Kind: simnet.StreamGap, Count: 1, After: 1}, want: "commit0 commit2"},
		{fault: simnet.StreamFault{Kind: simnet.StreamGap, Type: "#identity"}, want: "commit0 commit0 commit1 commit2",
			do: func() { accounts[0].RotateKey(); post3() }},
		{fault: simnet.StreamFault{Kind: simnet.StreamSeqRegression, Count: 1, After: 1}, want: "commit0 commit1 commit2",
			check: func(all []frame) bool { return all[1].seq < all[0].seq && all[2].seq == all[0].seq+2 }},
		{fault: simnet.StreamFault{Kind: simnet.StreamHidden}, want: "account0 commit0 account0 sync0",
			do: func() {
				accounts[0].SetStatus(simnet.Takendown)
				post(t, accounts[0], "from hiding")
				accounts[0].SetStatus(simnet.Active)
			}},
		{fault: simnet.StreamFault{Kind: simnet.StreamGarbage, Count: 1}, want: "garbage0 commit0 commit1 commit2"},
		{fault: simnet.StreamFault{Kind: simnet.StreamUnknownType, Count: 1}, want: "unheard0 commit0 commit1 commit2"},
		{fault: simnet.StreamFault{Kind: simnet.StreamOversized, Count: 1}, want: "garbage0 commit1 commit2",
			check: func([]frame) bool { return len(relay.Messages(relay.Head() - 3)[0]) > 5<<20 }}, // too much for indigo
	} {
		in := relay.InjectStream(row.fault)
		head := relay.Head()
		do := row.do
		if do == nil {
			do = post3
		}
		do()
		all := lenient(relay, head)
		if got := outline(n, all); got != row.want || (row.check != nil && !row.check(all)) {
			t.Errorf("%+v: %s, want %s", row.fault, got, row.want)
		}
		if in.Fired() == 0 || (row.fault.Count > 0 && in.Fired() != row.fault.Count) {
			t.Errorf("%s fired %d times", row.fault.Kind, in.Fired())
		}
		if row.fault.Kind == simnet.StreamReorder && row.fault.Count == 0 {
			n.Settle()
			if got := outline(n, frames(t, relay, head)); got != row.want+" commit2" {
				t.Errorf("settled: %s", got)
			}
		}
		in.Clear()
		post(t, accounts[0], "over")
		if got := frames(t, relay, relay.Head()-1); len(got) != 1 || checkCommit(got[0].commit, accounts[0].Truth().Key) != nil {
			t.Errorf("after %s: %s", row.fault.Kind, outline(n, got))
		}
	}
}

func TestCommitFaults(t *testing.T) {
	t.Parallel()
	n := streamWorld(t)
	a := n.Accounts()[0]
	key := a.Truth().Key
	type seen struct {
		frame
		truth simnet.Commit
		err   error // of indigo's check
	}
	says := func(s seen, part string) bool { return s.err != nil && strings.Contains(s.err.Error(), part) }
	for _, row := range []struct {
		fault simnet.StreamFault
		check func(s seen) bool
	}{
		{simnet.StreamFault{Kind: simnet.StreamForgedExtra}, func(s seen) bool {
			return says(s, "signature invalid") && s.commit.Rev < s.truth.Rev && *s.commit.Since == s.truth.Since && len(s.commit.Ops) == 1
		}},
		{simnet.StreamFault{Kind: simnet.StreamLyingSince}, func(s seen) bool {
			return s.err == nil && *s.commit.Since != s.truth.Since && s.commit.Rev == s.truth.Rev
		}},
		{simnet.StreamFault{Kind: simnet.StreamNoPrevData}, func(s seen) bool {
			_, blocks := readCommit(t, s.commit.Blocks)
			return s.commit.PrevData == nil && s.commit.Ops[0].Prev == nil && s.commit.Since != nil && blocks > 3
		}},
		{simnet.StreamFault{Kind: simnet.StreamNoPrevData, Bare: true}, func(s seen) bool {
			return s.commit.PrevData == nil && s.commit.Ops[0].Prev == nil
		}},
		{simnet.StreamFault{Kind: simnet.StreamForgedSignature}, func(s seen) bool {
			return says(s, "signature invalid") && s.commit.Rev == s.truth.Rev && s.commit.Commit.String() != s.truth.CID.String()
		}},
		{simnet.StreamFault{Kind: simnet.StreamForgedRecord}, func(s seen) bool { return says(s, "mismatch in content integrity") }},
		{simnet.StreamFault{Kind: simnet.StreamMissingRecord}, func(s seen) bool { return says(s, "could not find") }},
		{simnet.StreamFault{Kind: simnet.StreamWrongDID}, func(s seen) bool {
			return s.commit.Repo == n.DIDs()[1] && says(s, "did not match commit")
		}},
		{simnet.StreamFault{Kind: simnet.StreamFutureRev}, func(s seen) bool {
			return s.err == nil && time.Until(syntax.TID(s.commit.Rev).Time()) > time.Hour
		}},
		{simnet.StreamFault{Kind: simnet.StreamManyOps}, func(s seen) bool {
			return len(s.commit.Ops) == 1001 && s.commit.Rev == s.truth.Rev
		}},
		{simnet.StreamFault{Kind: simnet.StreamTooBig}, func(s seen) bool {
			return s.commit.TooBig && len(s.commit.Ops) == 0 && len(s.commit.Blocks) == 0 && s.commit.Rev == s.truth.Rev
		}},
		{simnet.StreamFault{Kind: simnet.StreamSyncInstead}, func(s seen) bool {
			data, _ := readCommit(t, s.sync.Blocks)
			return s.sync.Rev == s.truth.Rev && data == s.truth.Data.String()
		}},
	} {
		for _, extra := range []bool{false, true} {
			row.fault.Extra, row.fault.DID, row.fault.Count = extra, a.DID(), 1
			hosts := []*simnet.Host{n.RelayHost(), n.Host(0)}
			for _, h := range hosts {
				in := h.InjectStream(row.fault)
				head := h.Head()
				truth, err := a.Put("app.bsky.feed.post/fixed", simnet.Post(fmt.Sprint("text ", head, extra)))
				if err != nil {
					t.Fatal(err)
				}
				all := frames(t, h, head)
				s := seen{frame: all[0], truth: truth}
				if s.commit != nil && !s.commit.TooBig {
					s.err = checkCommit(s.commit, key)
				}
				if !row.check(s) || in.Fired() != 1 {
					t.Errorf("%s fired %d times: %v, %+v", row.fault.Kind, in.Fired(), s.err, s.commit)
				}
				follows := extra || row.fault.Kind == simnet.StreamForgedExtra
				if len(all) != 1 && !follows || follows && (len(all) != 2 || checkCommit(all[1].commit, key) != nil) {
					t.Errorf("%s, extra %t: %s", row.fault.Kind, extra, outline(n, all))
				}
				if r := a.Truth().Rev; r != truth.Rev {
					t.Errorf("%s moved the truth", row.fault.Kind)
				}
				h.ClearStreamFaults()
			}
		}
	}
	checkAccount(t, a)
}

// TestBareBlocksLackTheProof wants a Bare commit that some inversion cannot do with.
func TestBareBlocksLackTheProof(t *testing.T) {
	t.Parallel()
	n := streamWorld(t)
	a, relay := n.Accounts()[0], n.RelayHost()
	relay.InjectStream(simnet.StreamFault{Kind: simnet.StreamNoPrevData, Bare: true})
	fewer, failed := 0, 0
	for range 100 {
		truth, err := a.Mutate(1)
		if err != nil {
			t.Fatal(err)
		}
		bare := frames(t, relay, relay.Head()-1)[0].commit
		full := frames(t, n.Relays()[1], n.Relays()[1].Head()-1)[0].commit
		_, short := readCommit(t, bare.Blocks)
		_, long := readCommit(t, full.Blocks)
		if short > long {
			t.Errorf("bare has %d blocks, full %d", short, long)
		}
		if short < long {
			fewer++
		}
		bare.Ops, bare.PrevData = full.Ops, full.PrevData
		if checkCommit(bare, a.Truth().Key) != nil {
			failed++
		}
		if checkCommit(full, a.Truth().Key) != nil {
			t.Errorf("commit %s", truth.Rev)
		}
	}
	if fewer == 0 || failed == 0 {
		t.Errorf("%d of 100 bare commits had fewer blocks, %d could not be taken back", fewer, failed)
	}
}

func TestWrongHost(t *testing.T) {
	t.Parallel()
	n := streamWorld(t)
	a, thief := n.Accounts()[0], n.Host(1)
	in := thief.InjectStream(simnet.StreamFault{Kind: simnet.StreamWrongHost, DID: a.DID()})
	head := thief.Head()
	post(t, a, "mine")
	a.SetStatus(simnet.Deleted)
	post(t, n.Accounts()[1], "at home there")
	post(t, n.Accounts()[2], "not stolen")
	if got := outline(n, frames(t, thief, head)); got != "commit0 account0 commit1" || in.Fired() != 2 {
		t.Errorf("%s, fired %d times", got, in.Fired())
	}
}

func TestRelaysDiffer(t *testing.T) {
	t.Parallel()
	n := streamWorld(t)
	heads := []int64{n.Relays()[0].Head(), n.Relays()[1].Head()}
	n.Relays()[0].InjectStream(simnet.StreamFault{Kind: simnet.StreamReorder})
	n.Relays()[1].InjectStream(simnet.StreamFault{Kind: simnet.StreamReorder, Ahead: 2, After: 2})
	n.History(5, simnet.Weights{Commit: 1}).Run(60)
	n.Settle()
	var logs [2][]string
	for i, relay := range n.Relays() {
		for _, f := range frames(t, relay, heads[i]) {
			logs[i] = append(logs[i], f.did+" "+f.commit.Rev)
		}
	}
	if slices.Equal(logs[0], logs[1]) {
		t.Error("both relays have the same order")
	}
	for i := range logs {
		slices.SortStableFunc(logs[i], func(x, y string) int { return strings.Compare(x[:32], y[:32]) })
		if !slices.IsSorted(logs[i]) {
			t.Errorf("relay %d swaps events of one account", i)
		}
	}
	if !slices.Equal(logs[0], logs[1]) || len(logs[0]) != 60 {
		t.Errorf("%d and %d events", len(logs[0]), len(logs[1]))
	}
}

func TestConnectionFaults(t *testing.T) {
	t.Parallel()
	n := streamWorld(t)
	relay, a := n.RelayHost(), n.Accounts()[0]
	quiet := func(pong bool) func(conn *websocket.Conn) string {
		return func(conn *websocket.Conn) string {
			ponged := make(chan struct{}, 1)
			conn.SetPongHandler(func(string) error { ponged <- struct{}{}; return nil })
			_ = conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(time.Second))
			post(t, a, "unheard")
			_ = conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			if _, _, err := conn.ReadMessage(); !timedOut(err) {
				return fmt.Sprintf("not silent: %v", err)
			}
			if pong != (len(ponged) == 1) {
				return fmt.Sprintf("%d pongs", len(ponged))
			}
			return ""
		}
	}
	ends := func(name string) func(conn *websocket.Conn) string {
		return func(conn *websocket.Conn) string {
			if f := read(t, conn); f.kind != "error" || f.name != name {
				return fmt.Sprintf("%+v", f)
			}
			if _, _, err := conn.ReadMessage(); !websocket.IsCloseError(err, websocket.ClosePolicyViolation) {
				return fmt.Sprint(err)
			}
			return ""
		}
	}
	for _, row := range []struct {
		fault simnet.StreamFault
		check func(conn *websocket.Conn) string
	}{
		{simnet.StreamFault{Kind: simnet.StreamSilent}, quiet(true)},
		{simnet.StreamFault{Kind: simnet.StreamDead}, quiet(false)},
		{simnet.StreamFault{Kind: simnet.StreamError}, ends("ConsumerTooSlow")},
		{simnet.StreamFault{Kind: simnet.StreamError, Error: "Whatever"}, ends("Whatever")},
		{simnet.StreamFault{Kind: simnet.StreamDisconnect}, func(conn *websocket.Conn) string {
			_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, r, err := conn.NextReader(); err != nil {
				return fmt.Sprint("no frame began: ", err)
			} else if part, err := io.ReadAll(r); len(part) == 0 || !websocket.IsCloseError(err, websocket.CloseAbnormalClosure) {
				return fmt.Sprintf("%d bytes, then %v", len(part), err)
			}
			return ""
		}},
	} {
		for _, after := range []int{0, 2} {
			row.fault.After, row.fault.Count = after, 1
			in := relay.InjectStream(row.fault)
			conn := dial(t, relay, "?cursor=0")
			readN(t, conn, after)
			if wrong := row.check(conn); wrong != "" || in.Fired() != 1 {
				t.Errorf("%+v fired %d times: %s", row.fault, in.Fired(), wrong)
			}
			conn.Close()
			next := dial(t, relay, "?cursor=0") // the fault is spent
			readN(t, next, 3)
			next.Close()
			waitFor(t, func() bool { return relay.Connections() == 0 })
		}
	}
	live := dial(t, relay, "") // a connection that exists meets the fault too
	if err := relay.WaitConnections(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	relay.InjectStream(simnet.StreamFault{Kind: simnet.StreamError})
	if wrong := ends("ConsumerTooSlow")(live); wrong != "" {
		t.Error(wrong)
	}
}

func timedOut(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

func TestRefusedUpgrades(t *testing.T) {
	t.Parallel()
	n := streamWorld(t)
	relay := n.RelayHost()
	ofStream := relay.InjectStream(simnet.StreamFault{Kind: simnet.StreamRefused, Count: 1})
	ofHost := relay.Inject(simnet.Fault{Kind: simnet.ServerError, Endpoint: "com.atproto.sync.subscribeRepos", Count: 1, RetryAfter: time.Second})
	for _, want := range []int{503, 429, 101} {
		_, response, err := websocket.DefaultDialer.DialContext(t.Context(), streamURL(relay, ""), nil)
		if response == nil || response.StatusCode != want || (err == nil) != (want == http.StatusSwitchingProtocols) {
			t.Errorf("%v, want %d: %v", response, want, err)
		}
	}
	if ofStream.Fired() != 1 || ofHost.Fired() != 1 {
		t.Errorf("fired %d and %d times", ofStream.Fired(), ofHost.Fired())
	}
}

func TestLag(t *testing.T) {
	t.Parallel()
	n := streamWorld(t)
	slow, fast := n.Relays()[0], n.Relays()[1]
	in := slow.InjectStream(simnet.StreamFault{Kind: simnet.StreamLag, Delay: 150 * time.Millisecond})
	one, two := dial(t, slow, ""), dial(t, fast, "")
	for _, h := range n.Relays() {
		if err := h.WaitConnections(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	post(t, n.Accounts()[0], "one")
	post(t, n.Accounts()[1], "two")
	first, second := readN(t, two, 2), readN(t, one, 2)
	if wait := time.Since(began); wait < 150*time.Millisecond || in.Fired() == 0 {
		t.Errorf("after %s, fired %d times", wait, in.Fired())
	}
	if first[0].commit.Rev != second[0].commit.Rev || first[1].commit.Rev != second[1].commit.Rev {
		t.Error("lag changed the order")
	}
}

func TestStreamFaultNames(t *testing.T) {
	t.Parallel()
	names := make(map[string]bool)
	for k := simnet.StreamDuplicate; k <= simnet.StreamLag; k++ {
		names[k.String()] = true
	}
	if len(names) != int(simnet.StreamLag) || simnet.StreamLag.String() != "StreamLag" || simnet.StreamForgedExtra.String() != "StreamForgedExtra" {
		t.Error(names)
	}
	if got := (simnet.StreamLag + 1).String(); got != fmt.Sprintf("StreamFaultKind(%d)", int(simnet.StreamLag)+1) {
		t.Error(got)
	}
}
