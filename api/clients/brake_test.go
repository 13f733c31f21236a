package clients_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"cistern/api/clients"
)

// brakeAt returns a brake with a clock that the test moves.
func brakeAt(t *testing.T, now *time.Time) *clients.Brake {
	t.Helper()
	b, err := clients.NewBrake(func() time.Time { return *now })
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func peer(i int) netip.Prefix {
	return clients.Of(fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255))
}

// TestBrake: a client makes ten wrong guesses, and then one in ten seconds, whether or not the next is
// right; right guesses are free.
func TestBrake(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	b := brakeAt(t, &now)
	a, other := peer(1), peer(2)
	right := func() bool { return true }
	for range 100 {
		if ok, wait := b.Try(a, right); !ok || wait != 0 {
			t.Fatalf("a right guess: %t, %s", ok, wait)
		}
	}
	for i := range 10 {
		if wait := b.Wrong(a); wait != 0 {
			t.Fatalf("guess %d waits %s", i, wait)
		}
	}
	called := false
	if ok, wait := b.Try(a, func() bool { called = true; return true }); ok || called || wait != 10*time.Second {
		t.Errorf("after ten wrong guesses: %t, looked at %t, waits %s", ok, called, wait)
	}
	now = now.Add(4 * time.Second)
	if wait := b.Wrong(a); wait != 6*time.Second {
		t.Errorf("four seconds later it waits %s", wait)
	}
	if ok, _ := b.Try(other, right); !ok {
		t.Error("another client waits")
	}
	now = now.Add(6 * time.Second)
	if ok, wait := b.Try(a, right); !ok {
		t.Errorf("after ten seconds it waits %s", wait)
	}
	if b.Wrong(a); b.Wrong(a) != 10*time.Second {
		t.Error("after ten seconds it guesses more than once")
	}
}

// TestBrakeOfAll: many clients together make 200 wrong guesses, and then one a second. One client
// that guesses all the time does not use that up.
func TestBrakeOfAll(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	one := brakeAt(t, &now)
	for range 100_000 {
		one.Wrong(peer(1))
	}
	if wait := one.Wrong(peer(2)); wait != 0 {
		t.Errorf("one client has another wait %s", wait)
	}
	all := brakeAt(t, &now)
	for i := range 200 {
		if wait := all.Wrong(peer(i)); wait != 0 {
			t.Fatalf("client %d waits %s", i, wait)
		}
	}
	if wait := all.Wrong(peer(1000)); wait != time.Second {
		t.Errorf("after 200 guesses of all the next waits %s", wait)
	}
	now = now.Add(time.Second)
	if wait := all.Wrong(peer(1001)); wait != 0 {
		t.Errorf("a second later it waits %s", wait)
	}
}

// TestBrakeForgets: of very many clients the last ones are remembered.
func TestBrakeForgets(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	b := brakeAt(t, &now)
	for i := range 30_000 {
		now = now.Add(time.Second)
		b.Wrong(peer(i))
	}
	if n := b.Remembered(); n != 10_000 {
		t.Errorf("%d clients are remembered", n)
	}
}
