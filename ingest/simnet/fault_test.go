package simnet_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	indigo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"cistern/ingest/simnet"
)

func gunzip(t testing.TB, b []byte, limit int64) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(io.LimitReader(z, limit))
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

// faultNetwork has one host with a few accounts of some size.
func faultNetwork(t testing.TB) (*simnet.Network, *simnet.Account) {
	n := startNetwork(t, simnet.Options{Seed: 5, Repos: 3, Hosts: 1, RecordsMedian: 60})
	return n, n.Accounts()[0]
}

func TestFaultyAnswers(t *testing.T) {
	t.Parallel()
	n, a := faultNetwork(t)
	loop := repoURL(a)
	for _, row := range []struct {
		name  string
		fault simnet.Fault
		check func(reply) bool
	}{
		{"seconds", simnet.Fault{Kind: simnet.RateLimited, RetryAfter: 30 * time.Second}, func(r reply) bool {
			return r.status == 429 && r.header.Get("Retry-After") == "30"
		}},
		{"date", simnet.Fault{Kind: simnet.RateLimited, RetryAs: simnet.RetryDate, RetryAfter: time.Hour}, func(r reply) bool {
			at, err := http.ParseTime(r.header.Get("Retry-After"))
			return r.status == 429 && err == nil && time.Until(at) > 50*time.Minute
		}},
		{"reset", simnet.Fault{Kind: simnet.RateLimited, RetryAs: simnet.RateLimitReset, RetryAfter: time.Hour}, func(r reply) bool {
			at, err := strconv.ParseInt(r.header.Get("RateLimit-Reset"), 10, 64)
			return r.status == 429 && err == nil && time.Until(time.Unix(at, 0)) > 50*time.Minute
		}},
		{"unsaid", simnet.Fault{Kind: simnet.RateLimited, RetryAs: simnet.RetryUnsaid}, func(r reply) bool {
			return r.status == 429 && r.header.Get("Retry-After") == "" && r.header.Get("RateLimit-Remaining") != "0"
		}},
		{"503", simnet.Fault{Kind: simnet.ServerError, RetryAfter: 3 * time.Second}, func(r reply) bool {
			return r.status == 503 && r.header.Get("Retry-After") == "3"
		}},
		{"500", simnet.Fault{Kind: simnet.ServerError, Status: 500}, func(r reply) bool {
			return r.status == 500 && r.header.Get("Retry-After") == ""
		}},
		{"gone at the host only", simnet.Fault{Kind: simnet.Unavailable, Account: simnet.Suspended}, func(r reply) bool {
			return r.status == 400 && strings.Contains(string(r.body), `"RepoSuspended"`)
		}},
		{"garbage", simnet.Fault{Kind: simnet.Garbage}, func(r reply) bool {
			_, _, err := indigo.LoadRepoFromCAR(context.Background(), bytes.NewReader(r.body))
			return r.status == 200 && err != nil
		}},
		{"private redirect", simnet.Fault{Kind: simnet.Redirect}, func(r reply) bool {
			return r.status == 302 && strings.HasPrefix(r.header.Get("Location"), "http://169.254.")
		}},
		{"redirect", simnet.Fault{Kind: simnet.Redirect, Location: "http://[::1]/"}, func(r reply) bool {
			return r.header.Get("Location") == "http://[::1]/"
		}},
		{"loop", simnet.Fault{Kind: simnet.RedirectLoop}, func(r reply) bool {
			return r.status == 302 && strings.HasSuffix(loop, r.header.Get("Location"))
		}},
		{"bomb", simnet.Fault{Kind: simnet.GzipBomb, Bytes: 16 << 20}, func(r reply) bool {
			return len(r.body) < 1<<20 && len(gunzip(t, r.body, 1<<30)) > 16<<20
		}},
	} {
		in := n.Host(0).Inject(row.fault)
		if r := get(t, repoURL(a)); r.err != nil || !row.check(r) {
			t.Errorf("%s: status %d, header %v, %v", row.name, r.status, r.header, r.err)
		}
		if in.Fired() != 1 {
			t.Errorf("%s fired %d times", row.name, in.Fired())
		}
		in.Clear()
	}
	if r := get(t, repoURL(a)); r.status != 200 {
		t.Errorf("after all faults were cleared: %d", r.status)
	}
}

func TestFaultyCARs(t *testing.T) {
	t.Parallel()
	n, a := faultNetwork(t)
	key, err := atcrypto.ParsePublicDIDKey(a.Truth().Key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Mutate(5); err != nil { // so that there is an older commit
		t.Fatal(err)
	}
	whole, truth := a.CAR(), a.Truth()
	type loaded struct {
		reply
		commit *indigo.Commit
		repo   *indigo.Repo
		err    error // of loading
	}
	unloadable := func(l loaded) bool { return l.err != nil }
	for _, row := range []struct {
		kind  simnet.FaultKind
		check func(loaded) bool
	}{
		{simnet.WrongHash, unloadable},
		{simnet.WrongDID, func(l loaded) bool { return l.err == nil && l.commit.DID == n.DIDs()[1] }},
		{simnet.StaleRev, func(l loaded) bool { return l.commit.Rev < truth.Rev && l.commit.VerifySignature(key) == nil }},
		{simnet.FutureRev, func(l loaded) bool {
			return time.Until(syntax.TID(l.commit.Rev).Time()) > time.Hour && l.commit.VerifySignature(key) == nil
		}},
		{simnet.BadSignature, func(l loaded) bool {
			return l.err == nil && l.commit.Rev == truth.Rev && key.HashAndVerifyLenient(unsigned(l.commit), l.commit.Sig) != nil
		}},
		{simnet.HighS, func(l loaded) bool {
			return l.commit.VerifySignature(key) != nil && key.HashAndVerifyLenient(unsigned(l.commit), l.commit.Sig) == nil
		}},
		{simnet.MissingRecord, func(l loaded) bool {
			return l.err == nil && !l.repo.MST.IsPartial() && len(l.body) < len(whole)
		}},
		{simnet.MissingNode, func(l loaded) bool { return l.err == nil && l.repo.MST.IsPartial() }},
		{simnet.Truncated, func(l loaded) bool { return l.reply.err == nil && len(l.body) == len(whole)/2 }},
		{simnet.Reset, func(l loaded) bool { return l.reply.err != nil && len(l.body) <= len(whole)/2 }},
		{simnet.Mutated, func(l loaded) bool { return string(l.body) == "nothing" }},
	} {
		in := n.Host(0).Inject(simnet.Fault{
			Kind: row.kind, Mutate: func([]byte) []byte { return []byte("nothing") },
		})
		l := loaded{reply: get(t, repoURL(a))}
		l.commit, l.repo, l.err = indigo.LoadRepoFromCAR(t.Context(), bytes.NewReader(l.body))
		if l.status != 200 || !row.check(l) {
			t.Errorf("%s: status %d, %d of %d bytes, read %v, load %v", row.kind, l.status, len(l.body), len(whole), l.reply.err, l.err)
		}
		if in.Fired() != 1 {
			t.Errorf("%s fired %d times", row.kind, in.Fired())
		}
		in.Clear()
	}
	checkAccount(t, a) // faults leave the truth alone
}

func unsigned(c *indigo.Commit) []byte {
	b, err := c.UnsignedBytes()
	if err != nil {
		panic(err)
	}
	return b
}

func TestSlowFaultsEndWithTheClient(t *testing.T) {
	t.Parallel()
	n, a := faultNetwork(t)
	for _, fault := range []simnet.Fault{
		{Kind: simnet.Hang},
		{Kind: simnet.SlowDrip},
		{Kind: simnet.Latency, Delay: time.Hour},
		{Kind: simnet.GzipBomb, Bytes: 1 << 60},
	} {
		in := n.Host(0).Inject(fault)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { // the client gives up while the fault is at work
			for in.Fired() == 0 && ctx.Err() == nil {
				time.Sleep(time.Millisecond)
			}
			time.Sleep(20 * time.Millisecond)
			cancel()
		}()
		r := getContext(t, ctx, repoURL(a), nil)
		if r.err == nil && fault.Kind != simnet.GzipBomb { // of which get reads 8 MiB at most
			t.Errorf("%s answered in full", fault.Kind)
		}
		cancel()
		if in.Fired() != 1 {
			t.Errorf("%s fired %d times", fault.Kind, in.Fired())
		}
		in.Clear()
	}
	n.Host(0).Inject(simnet.Fault{Kind: simnet.Latency, Delay: time.Millisecond})
	drip := n.Host(0).Inject(simnet.Fault{Kind: simnet.SlowDrip, Bytes: 4000, Delay: time.Microsecond})
	if r := get(t, repoURL(a)); r.err != nil || !bytes.Equal(r.body, a.CAR()) || drip.Fired() != 1 {
		t.Errorf("latency, then a fast drip: %d bytes, %v", len(r.body), r.err)
	}
}

func TestFaultsMeetWhomTheySay(t *testing.T) {
	t.Parallel()
	n, a := faultNetwork(t)
	b := n.Accounts()[1]
	host := n.Host(0)
	first := host.Inject(simnet.Fault{Kind: simnet.ServerError, DID: a.DID(), Count: 2})
	for i, want := range []int{503, 503, 200} { // spent after two
		if r := get(t, repoURL(a)); r.status != want {
			t.Errorf("request %d: %d, want %d", i, r.status, want)
		}
		if r := get(t, repoURL(b)); r.status != 200 {
			t.Errorf("another account met the fault: %d", r.status)
		}
	}
	if first.Fired() != 2 {
		t.Errorf("fired %d times", first.Fired())
	}
	host.Inject(simnet.Fault{Kind: simnet.RateLimited})
	if r := get(t, host.URL()+"/xrpc/com.atproto.sync.getLatestCommit?did="+a.DID()); r.status != 200 {
		t.Errorf("a fault without endpoint met getLatestCommit: %d", r.status)
	}
	host.ClearFaults()
	host.Inject(simnet.Fault{Kind: simnet.RateLimited, Endpoint: "com.atproto.repo.listRecords"})
	if r := get(t, repoURL(a)); r.status != 200 {
		t.Errorf("a fault of listRecords met getRepo: %d", r.status)
	}
	n.PLCHost().Inject(simnet.Fault{Kind: simnet.RateLimited, Count: 1})
	for i, want := range []int{429, 200} {
		if r := get(t, n.PLC()+"/"+a.DID()); r.status != want {
			t.Errorf("PLC request %d: %d, want %d", i, r.status, want)
		}
	}
}

func TestDownHostRefusesAndComesBack(t *testing.T) {
	t.Parallel()
	n, a := faultNetwork(t)
	url := repoURL(a)
	for range 2 {
		if err := n.Host(0).Down(); err != nil {
			t.Fatal(err)
		}
		if r := get(t, url); !errors.Is(r.err, syscall.ECONNREFUSED) {
			t.Errorf("down: %d, %v", r.status, r.err)
		}
		if err := n.Host(0).Up(); err != nil {
			t.Fatal(err)
		}
		if r := get(t, url); r.status != 200 {
			t.Errorf("up again: %d, %v", r.status, r.err)
		}
	}
}

func TestLogCounts(t *testing.T) {
	t.Parallel()
	n, a := faultNetwork(t)
	host := n.Host(0)
	hang := host.Inject(simnet.Fault{Kind: simnet.Hang, Count: 2})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan reply, 2)
	for range 2 {
		go func() { done <- getContext(t, ctx, repoURL(a), nil) }()
	}
	waitFor(t, func() bool { return hang.Fired() == 2 && host.Log().InFlight == 2 })
	cancel()
	<-done
	<-done
	waitFor(t, func() bool { return host.Log().InFlight == 0 }) // the host notices later than we
	get(t, repoURL(a))
	waitFor(t, func() bool { return host.Log().InFlight == 0 })
	l := host.Log()
	if l.InFlightMax != 2 || len(l.Fetches[a.DID()]) != 3 || l.Requests["com.atproto.sync.getRepo"] != 3 {
		t.Errorf("log %+v", l)
	}
	host.ResetLog()
	if l := host.Log(); l.InFlightMax != 0 || len(l.Fetches) != 0 || len(l.Requests) != 0 {
		t.Errorf("log after reset %+v", l)
	}
}

func waitFor(t testing.TB, met func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !met(); {
		if time.Now().After(deadline) {
			t.Fatal("condition never met")
		}
		time.Sleep(time.Millisecond)
	}
}
