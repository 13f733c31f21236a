package filter_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"cistern/filter"
)

// names returns collections of few segments of few letters, so that many share a prefix: a.b.c,
// a.bb.c, a.b.c.d.
func names(rng *rand.Rand) string {
	segments := make([]string, 3+rng.IntN(3))
	for i := range segments {
		segments[i] = []string{"a", "b", "ab", "a-b", "B"}[rng.IntN(5)]
	}
	if last := len(segments) - 1; segments[last] == "a-b" {
		segments[last] = "aB" // the last segment has no hyphen
	}
	return strings.Join(segments, ".")
}

// patterns returns patterns, half of which end with a star.
func patterns(rng *rand.Rand, most int) []string {
	out := make([]string, rng.IntN(most+1))
	for i := range out {
		out[i] = names(rng)
		if rng.IntN(2) == 0 {
			segments := strings.Split(out[i], ".")
			out[i] = strings.Join(segments[:1+rng.IntN(len(segments)-1)], ".") + ".*"
		}
	}
	return out
}

func compiled(t *testing.T, rng *rand.Rand) *filter.Filter {
	t.Helper()
	f, err := filter.Compile(filter.Config{Signals: patterns(rng, 3), Collections: patterns(rng, 4)})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// matches is the simplest implementation of a pattern.
func matches(pattern, collection string) bool {
	prefix, wild := strings.CutSuffix(pattern, "*")
	return pattern == collection || wild && strings.HasPrefix(collection, prefix) && collection != prefix
}

func anyMatches(patterns []string, collection string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, collection) })
}

// universe returns all collections of a small world, and a collection below each pattern, so that
// every pattern matches one.
func universe(rng *rand.Rand, filters ...*filter.Filter) []string {
	var out []string
	for range 300 {
		out = append(out, names(rng))
	}
	for _, f := range filters {
		c := f.Config()
		for _, p := range slices.Concat(c.Signals, c.Collections) {
			if prefix, wild := strings.CutSuffix(p, "*"); wild {
				out = append(out, prefix+"zz.zz.zz", prefix+"a.b.c")
				continue
			}
			out = append(out, p)
		}
	}
	return out
}

// TestAgainstBruteForce: comparisons of filters agree with their decisions on every collection.
func TestAgainstBruteForce(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	seen := map[string]int{}
	for seed := range uint64(3000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		f, g := compiled(t, rng), compiled(t, rng)
		all := universe(rng, f, g)
		covers, covered := true, true
		for _, c := range all {
			wants := f.WantsAll() || anyMatches(f.Config().Collections, c)
			if f.Wants([]byte(c)) != wants || f.Signal([]byte(c)) != anyMatches(f.Config().Signals, c) {
				t.Fatalf("seed %d: %+v of %s: wanted %v, signal %v", seed, f.Config(), c, f.Wants([]byte(c)), f.Signal([]byte(c)))
			}
			covers = covers && (f.Wants([]byte(c)) || !g.Wants([]byte(c)))
			covered = covered && (f.Wants([]byte(c)) || !g.Signal([]byte(c)))
		}
		// A filter that wants all collections wants more than these.
		covers = covers && (f.WantsAll() || !g.WantsAll())
		if f.Covers(g) != covers || f.SignalsCovered(g) != covered {
			t.Fatalf("seed %d: %+v and %+v: covers %v, want %v; signals covered %v, want %v", seed, f.Config(), g.Config(), f.Covers(g), covers, f.SignalsCovered(g), covered)
		}
		if !f.Covers(f) {
			t.Fatalf("seed %d: %+v does not cover itself", seed, f.Config())
		}
		seen[fmt.Sprintf("covers %v, covered %v", covers, covered)]++
		for _, signals := range []bool{false, true} {
			wantRanges(t, seed, f, signals, all)
		}
	}
	if len(seen) != 4 {
		t.Errorf("the seeds show only %v", seen)
	}
}

// wantRanges checks that the ranges have exactly the keys of the wanted collections.
func wantRanges(t *testing.T, seed uint64, f *filter.Filter, signals bool, collections []string) {
	t.Helper()
	ranges := f.Ranges(signals)
	if f.WantsAll() {
		if ranges != nil {
			t.Fatalf("seed %d: all is wanted, and there are %d ranges", seed, len(ranges))
		}
		return
	}
	for i, r := range ranges {
		if bytes.Compare(r.Lower, r.Upper) >= 0 || i > 0 && bytes.Compare(ranges[i-1].Upper, r.Lower) > 0 {
			t.Fatalf("seed %d: %+v: range %d of %q is empty or out of order", seed, f.Config(), i, ranges)
		}
	}
	for _, c := range collections {
		want := f.Wants([]byte(c)) || signals && f.Signal([]byte(c))
		for _, rkey := range []string{"!", "3kaaaaaaaaaaa", "self", "~~~"} {
			key := []byte(c + "/" + rkey)
			in := slices.ContainsFunc(ranges, func(r filter.Range) bool {
				return bytes.Compare(r.Lower, key) <= 0 && bytes.Compare(key, r.Upper) < 0
			})
			if in != want {
				t.Fatalf("seed %d: %+v, signals %v: %s in %q: %v", seed, f.Config(), signals, key, ranges, in)
			}
		}
	}
}
