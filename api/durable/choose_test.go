package durable_test

import (
	"fmt"
	"testing"
	"time"

	"cistern/api/durable"
	"cistern/store"
)

// sharing is a window with an event of each of many accounts.
type sharing struct{ durable.Window }

func newSharing(most int) *sharing {
	p := store.SubscriptionPosition{Next: 1}
	return &sharing{Window: durable.NewWindow(p, most, time.Minute, at(0))}
}

// fill adds an event of each of some accounts, and returns the members that get them.
func (s *sharing) fill(accounts, tick int) (byDID map[string]int) {
	byDID = map[string]int{}
	next := s.Position().Next
	for i := range accounts {
		s.Add(next+uint64(i), fmt.Sprint("did:plc:", i), at(tick))
	}
	holders := s.Holders()
	for i := range accounts {
		byDID[fmt.Sprint("did:plc:", i)] = holders[next+uint64(i)]
	}
	return byDID
}

// settle settles everything.
func (s *sharing) settle() {
	for _, id := range s.Position().Outstanding {
		s.Settle(id)
	}
}

func counts(byDID map[string]int) map[int]int {
	n := map[int]int{}
	for _, number := range byDID {
		n[number]++
	}
	return n
}

// Accounts are spread over the members, and stay there: a new member takes its part, and only the
// part of a member that leaves moves. One that comes back gets what it had.
func TestChooseSticks(t *testing.T) {
	t.Parallel()
	const accounts = 3000
	s := newSharing(1 << 20)
	var members []durable.WindowMember
	for range 3 {
		members = append(members, s.Join(at(0)))
	}
	three := s.fill(accounts, 1)
	for number, n := range counts(three) {
		if n < accounts/4 || n > accounts/2 {
			t.Errorf("member %d has %d of %d accounts", number, n, accounts)
		}
	}
	s.settle()
	s.Join(at(2))
	four := s.fill(accounts, 3)
	for did, number := range four {
		if number != 4 && number != three[did] {
			t.Fatalf("%s moves from member %d to %d when member 4 comes", did, three[did], number)
		}
	}
	if n := counts(four)[4]; n < accounts/6 || n > accounts/3 {
		t.Errorf("the new member has %d of %d accounts", n, accounts)
	}
	s.settle()
	s.Leave(members[1], at(4))
	for did, number := range s.fill(accounts, 5) {
		if number == 2 || four[did] != 2 && number != four[did] {
			t.Fatalf("%s moves from member %d to %d when member 2 leaves", did, four[did], number)
		}
	}
	s.settle()
	if m := s.Join(at(6)); m.Number() != 2 {
		t.Fatalf("it has number %d", m.Number())
	}
	for did, number := range s.fill(accounts, 7) {
		if number != four[did] {
			t.Fatalf("%s is at member %d after member 2 came back, not at %d", did, number, four[did])
		}
	}
}

// A member has at most its share of the window in accounts that may go elsewhere, and a stalled one
// has none, unless all are stalled.
func TestChooseSpares(t *testing.T) {
	t.Parallel()
	s := newSharing(100)
	a, b := s.Join(at(0)), s.Join(at(0))
	s.fill(100, 1)
	if a.Held() != 50 || b.Held() != 50 {
		t.Errorf("%d and %d are held", a.Held(), b.Held())
	}
	// Both get everything, and one acknowledges.
	s.Take(a, 100, at(2))
	for _, it := range s.Take(b, 100, at(2)) {
		s.Acknowledge(b, it.ID, 0, 0, at(50))
	}
	s.Expire(at(61))
	if !a.Stalled() || b.Stalled() || a.Held() != 0 || b.Held() != 50 {
		t.Errorf("stalled %t and %t, %d and %d are held", a.Stalled(), b.Stalled(), a.Held(), b.Held())
	}
	s.fill(50, 62)
	if a.Held() != 0 || b.Held() != 100 {
		t.Errorf("%d and %d are held", a.Held(), b.Held())
	}
	s.Expire(at(200)) // now both are stalled
	if !b.Stalled() || b.Held() != 100 {
		t.Errorf("stalled %t, %d are held", b.Stalled(), b.Held())
	}
	s.Acknowledge(a, 99999, 0, 0, at(201)) // it has not even got it any more
	s.Expire(at(202))
	if a.Stalled() || a.Held() != 100 {
		t.Errorf("stalled %t, %d are held", a.Stalled(), a.Held())
	}
}
