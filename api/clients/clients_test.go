package clients_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"cistern/api/clients"

	"golang.org/x/sync/errgroup"
)

func TestClientOf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ a, b string }{
		{"192.0.2.1:80", "192.0.2.1:81"},                  // another port
		{"192.0.2.1:80", "[::ffff:192.0.2.1]:80"},         // a dual-stack socket
		{"[2001:db8::1]:80", "[2001:db8:0:0:ffff::2]:80"}, // the same /64
		{"[fe80::1%eth0]:80", "[fe80::1%eth1]:80"},        // the zone is ours, not the peer's
		{"pipe", "another pipe"},                          // no address at all
	} {
		if clients.Of(c.a) != clients.Of(c.b) {
			t.Errorf("%s and %s are two clients", c.a, c.b)
		}
	}
	for _, c := range []struct{ a, b string }{
		{"192.0.2.1:80", "192.0.2.2:80"},
		{"127.0.0.1:80", "127.0.0.2:80"},
		{"[2001:db8::1]:80", "[2001:db8:0:1::1]:80"}, // the next /64
		{"192.0.2.1:80", "pipe"},
	} {
		if clients.Of(c.a) == clients.Of(c.b) {
			t.Errorf("%s and %s are one client", c.a, c.b)
		}
	}
}

// However many turns one client waits for, another has a quarter of them at once.
func TestTurnsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		greedy, other := clients.Of("192.0.2.1:1"), clients.Of("192.0.2.2:1")
		turns := clients.NewTurns(32)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var g errgroup.Group
		for range 100 {
			g.Go(func() error {
				if err := turns.Acquire(ctx, greedy, 4); err != nil {
					return nil // its client gave up
				}
				<-ctx.Done()
				turns.Release(greedy, 4)
				return nil
			})
		}
		synctest.Wait()
		if turns.TryAcquire(greedy, 1) {
			t.Error("a client has more than three quarters")
		}
		if err := turns.Acquire(ctx, other, 8); err != nil {
			t.Fatal(err)
		}
		if turns.TryAcquire(other, 1) {
			t.Error("more turns than there are")
		}
		turns.Release(other, 8)
		cancel()
		if err := errors.Join(g.Wait(), turns.Acquire(t.Context(), greedy, 24)); err != nil {
			t.Fatal(err)
		}
		turns.Release(greedy, 24)
		if n := turns.Uses(); n != 0 {
			t.Errorf("%d uses are remembered of clients that hold nothing", n)
		}
	})
}
