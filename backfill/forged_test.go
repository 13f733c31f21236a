package backfill_test

import (
	"crypto/sha256"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"testing"
	"time"

	"cistern/ingest/repo"
	"cistern/ingest/simnet"
	"cistern/store"
)

// pathAt is the nth path, in rising order, whose hash puts it at a layer of the tree.
func pathAt(layer, nth int) string {
	for i := 0; ; i++ {
		p := fmt.Sprintf("app.bsky.feed.post/%06d", i)
		sum := sha256.Sum256([]byte(p))
		zeros := 0
		for _, b := range sum {
			zeros += bits.LeadingZeros8(b)
			if b != 0 {
				break
			}
		}
		if zeros/2 != layer {
			continue
		}
		if nth == 0 {
			return p
		}
		nth--
	}
}

// entries are the entries of one node, each path compressed against the path before it.
func entries(value repo.CID, paths ...string) []simnet.Entry {
	var out []simnet.Entry
	last := ""
	for _, p := range paths {
		n := 0
		for n < len(last) && n < len(p) && last[n] == p[n] {
			n++
		}
		out = append(out, simnet.Entry{Prefix: n, Suffix: p[n:], Value: value})
		last = p
	}
	return out
}

// TestForgedTrees: invalid trees that are signed by their author are rejected with the reason, and
// nothing is stored. The other repository of the host is copied meanwhile, failures are counted and
// delay the next attempt, and the true repository is copied once it arrives. A cycle cannot be made
// of hashes; the nearest is a subtree at two places.
func TestForgedTrees(t *testing.T) {
	t.Parallel()
	record := simnet.EncodeRecord(simnet.Post("forged"))
	value := repo.HashCID(record)
	a, b, c := pathAt(0, 0), pathAt(0, 1), pathAt(0, 2)
	if !slices.IsSorted([]string{a, b, c}) {
		t.Fatal("paths do not rise")
	}
	leaf := simnet.EncodeNode(repo.CID{}, entries(value, a)...)
	above := pathAt(1, 3)
	type tree struct {
		data   repo.CID
		blocks [][]byte
	}
	one := func(es ...simnet.Entry) tree {
		node := simnet.EncodeNode(repo.CID{}, es...)
		return tree{repo.HashCID(node), [][]byte{record, node}}
	}
	two := func(left repo.CID, es ...simnet.Entry) tree {
		node := simnet.EncodeNode(left, es...)
		return tree{repo.HashCID(node), [][]byte{record, leaf, node}}
	}
	rooted := entries(value, above)
	shared := slices.Clone(rooted)
	shared[0].Right = repo.HashCID(leaf)
	lost := slices.Clone(rooted)
	lost[0].Value = repo.HashCID([]byte("nowhere"))
	for name, f := range map[string]tree{
		"the root is a record":              {value, [][]byte{record}},
		"the root is absent":                {repo.HashCID([]byte("nowhere")), [][]byte{record}},
		"a subtree in two places":           two(repo.HashCID(leaf), shared...),
		"a subtree is absent":               two(repo.HashCID([]byte("nowhere")), rooted...),
		"a record is absent":                two(repo.HashCID(leaf), lost...),
		"a first entry with a prefix":       one(simnet.Entry{Prefix: 3, Suffix: a, Value: value}),
		"a negative prefix":                 one(append(entries(value, a), simnet.Entry{Prefix: -1, Suffix: b, Value: value})...),
		"a prefix beyond the path before":   one(append(entries(value, a), simnet.Entry{Prefix: 1 << 20, Suffix: b, Value: value})...),
		"a path twice":                      one(append(entries(value, a), simnet.Entry{Prefix: len(a), Value: value})...),
		"paths that fall":                   one(entries(value, b, a)...),
		"a path above its layer":            two(repo.HashCID(leaf), entries(value, c)...),
		"a path below its layer":            one(entries(value, a, above)...),
		"a path longer than any":            one(simnet.Entry{Suffix: "app.bsky.feed.post/" + strings.Repeat("a", 1<<12), Value: value}),
		"an empty path":                     one(simnet.Entry{Value: value}),
		"a root that only points downwards": two(repo.HashCID(leaf)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 2, RecordsMedian: 5}})
			did, other := w.Net.DIDs()[0], w.Net.DIDs()[1]
			car := w.Net.Account(did).Forge(f.data, f.blocks...)
			in := w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.Mutated, DID: did, Mutate: func([]byte) []byte { return car }})
			w.Add(did, other)
			w.Settle(did, other)
			for attempt := uint32(1); attempt <= 2; attempt++ {
				r := w.Row(did)
				if r.State != store.StateResync || r.Retry.Kind != store.Generic || r.Retry.Count != attempt || r.Ordinal != 0 {
					t.Fatalf("attempt %d: %+v", attempt, r)
				}
				if strings.Contains(r.Retry.Error, "signature") {
					t.Fatalf("refused for its signature, not for its tree: %s", r.Retry.Error)
				}
				base := time.Minute << (attempt - 1)
				if d := time.Unix(r.Retry.Next, 0).Sub(w.Clock.Now()); d < base*8/10 || d > base*12/10 {
					t.Errorf("attempt %d: next in %s", attempt, d)
				}
				w.Gauges()
				if attempt == 1 {
					w.Add(did)
					w.Settle(did)
				}
			}
			w.Equal(other)
			if c := w.Store.Counts(); c["records"] != w.Row(other).Records || c["error_generic"] != 1 {
				t.Errorf("counts %v", c)
			}
			if in.Fired() != 2 {
				t.Errorf("served %d times", in.Fired())
			}
			in.Clear()
			w.Add(did)
			w.Settle(did)
			w.Equal(did)
		})
	}
}
