package refilter_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"cistern/backfill/refilter"
)

// TestIncludes: a set includes another if it has each of its elements, at the size of the largest filters too.
func TestIncludes(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	set := func(most int) (s []string) {
		for range random.IntN(most) {
			s = append(s, fmt.Sprint(random.IntN(8)))
		}
		slices.Sort(s)
		return slices.Compact(s)
	}
	for range 2000 {
		all, some := set(12), set(6)
		want := !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
		if got := refilter.Includes(all, some); got != want {
			t.Fatalf("%v includes %v: %v", all, some, got)
		}
	}
	var large []string
	for i := range 10_000 {
		large = append(large, fmt.Sprintf("com.example%05d.thing", i))
	}
	if !refilter.Includes(large, large) || refilter.Includes(large[1:], large) || refilter.Includes(large[:9999], large) {
		t.Error("10,000 elements")
	}
}
