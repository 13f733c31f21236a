package store_test

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"cistern/store"
	"cistern/store/storetest"
)

// tuple is what a key is made of; keys use some of its fields.
type tuple struct {
	n    [3]uint64
	text string
	rev  string
	kind string
	part string
}

// keyType is one row of the table in keys.go.
type keyType struct {
	name   string
	random func(rng *rand.Rand) tuple
	key    func(dst []byte, t tuple) []byte
	parse  func(b []byte) (tuple, error)
	order  func(a, b tuple) int // nil: the key's order means nothing
	golden map[string]tuple
}

func numbers(a, b tuple) int { return slices.Compare(a.n[:], b.n[:]) }

// near returns numbers that are often equal, neighbours, or at a byte's edge.
func near(rng *rand.Rand, bits int) uint64 {
	n := rng.Uint64() >> (64 - bits)
	switch rng.IntN(4) {
	case 0:
		return n & 3
	case 1:
		return (1<<(8*rng.IntN(bits/8)) + n&1 - 1) & (1<<bits - 1)
	case 2:
		return 1<<bits - 1 - n&1
	}
	return n
}

func randomText(rng *rand.Rand, alphabet string, low, high int) string {
	b := make([]byte, low+rng.IntN(high-low+1))
	for i := range b {
		b[i] = alphabet[rng.IntN(len(alphabet))]
	}
	return string(b)
}

// randomDID returns canonical DIDs and everything near them.
func randomDID(rng *rand.Rand) string {
	switch rng.IntN(6) {
	case 0:
		return "did:web:" + randomText(rng, "ab.-:%", 1, 40)
	case 1: // not base32, or not lower case
		return "did:plc:" + randomText(rng, "abc01289ABC\n\r", 24, 24)
	case 2: // wrong length
		return "did:plc:" + randomText(rng, "abc234567", 0, 40)
	case 3:
		return randomText(rng, "did:plcweb\x00\x01\x02\xff", 0, 30)
	}
	return "did:plc:" + randomText(rng, "abcxyz27", 24, 24)
}

// compareDIDs compares in the order of DIDs in keys: did:plc first by their numbers, the rest by
// length and text.
func compareDIDs(a, b string) int {
	rank := func(s string) string { // base32 letters in the order of their values
		return strings.Map(func(r rune) rune {
			if r >= '2' && r <= '7' {
				return r + 'z'
			}
			return r
		}, s)
	}
	canonical := func(s string) bool {
		return len(s) == 32 && strings.HasPrefix(s, "did:plc:") && strings.Trim(s[8:], "abcdefghijklmnopqrstuvwxyz234567") == ""
	}
	switch ca, cb := canonical(a), canonical(b); {
	case ca && cb:
		return cmp.Compare(rank(a), rank(b))
	case ca:
		return -1
	case cb:
		return 1
	}
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

const plc = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"

func keyTypes() []keyType {
	numbered := func(space byte) keyType {
		return keyType{
			name:   store.SpaceNames[space],
			random: func(rng *rand.Rand) tuple { return tuple{n: [3]uint64{near(rng, 40), near(rng, 32)}} },
			key: func(dst []byte, t tuple) []byte {
				return store.NumberedKey(dst, space, store.Ordinal(t.n[0]), uint32(t.n[1]))
			},
			parse: func(b []byte) (tuple, error) {
				o, n, err := store.ParseNumberedKey(space, b)
				return tuple{n: [3]uint64{uint64(o), uint64(n)}}, err
			},
			order:  numbers,
			golden: map[string]tuple{hex.EncodeToString([]byte{space}) + "010203040506070809": {n: [3]uint64{0x0102030405, 0x06070809}}},
		}
	}
	ordinal := func(space byte) keyType {
		return keyType{
			name:   store.SpaceNames[space],
			random: func(rng *rand.Rand) tuple { return tuple{n: [3]uint64{near(rng, 40)}} },
			key:    func(dst []byte, t tuple) []byte { return store.OrdinalKey(dst, space, store.Ordinal(t.n[0])) },
			parse: func(b []byte) (tuple, error) {
				o, err := store.ParseOrdinalKey(space, b)
				return tuple{n: [3]uint64{uint64(o)}}, err
			},
			order:  numbers,
			golden: map[string]tuple{hex.EncodeToString([]byte{space}) + "0102030405": {n: [3]uint64{0x0102030405}}},
		}
	}
	return append([]keyType{numbered(store.SpaceBlock), numbered(store.SpaceRef), numbered(store.SpaceListing),
		ordinal(store.SpaceOwner), ordinal(store.SpaceLease), ordinal(store.SpaceDropped), ordinal(store.SpaceGarbage),
		subscriptionKeyType(store.SpaceSubscribed), subscriptionKeyType(store.SpacePosition), subscriptionKeyType(store.SpaceWebhook),
		maintenanceKeyType(), segmentKeyType(), postingKeyType(), totalKeyType(), dayKeyType()},
		append(otherKeyTypes(), markKeyTypes()...)...)
}

func otherKeyTypes() []keyType {
	did := func(t tuple) string { return t.text }
	return []keyType{{
		name:   "repos",
		random: func(rng *rand.Rand) tuple { return tuple{text: randomDID(rng)} },
		key:    func(dst []byte, t tuple) []byte { return store.RepoKey(dst, did(t)) },
		parse: func(b []byte) (tuple, error) {
			s, err := store.ParseRepoKey(b)
			return tuple{text: s}, err
		},
		order: func(a, b tuple) int { return compareDIDs(a.text, b.text) },
		golden: map[string]tuple{
			"730125aa8fb6f9c3a8df64f789e5ee3919": {text: plc},
			// Upper case, and text that is not base32, is kept as text and read back unchanged.
			"7302" + "0020" + hex.EncodeToString([]byte(strings.ToUpper(plc))): {text: strings.ToUpper(plc)},
			"7302000f" + hex.EncodeToString([]byte("did:web:a.test:")):         {text: "did:web:a.test:"},
		},
	}, {
		name: "records",
		random: func(rng *rand.Rand) tuple {
			return tuple{n: [3]uint64{near(rng, 40)}, text: randomText(rng, "\x00/ab\xff", 1, 8)}
		},
		key: func(dst []byte, t tuple) []byte {
			return store.RecordKey(dst, store.Ordinal(t.n[0]), []byte(t.text))
		},
		parse: func(b []byte) (tuple, error) {
			o, path, err := store.ParseRecordKey(b)
			return tuple{n: [3]uint64{uint64(o)}, text: string(path)}, err
		},
		order:  func(a, b tuple) int { return cmp.Or(numbers(a, b), cmp.Compare(a.text, b.text)) },
		golden: map[string]tuple{"720000000001612e622e632f64": {n: [3]uint64{1}, text: "a.b.c/d"}},
	}, {
		name: "collections",
		random: func(rng *rand.Rand) tuple {
			return tuple{n: [3]uint64{near(rng, 40)}, text: randomText(rng, ".-az", 1, 6)}
		},
		key: func(dst []byte, t tuple) []byte {
			return store.CollectionKey(dst, []byte(t.text), store.Ordinal(t.n[0]))
		},
		parse: func(b []byte) (tuple, error) {
			c, o, err := store.ParseCollectionKey(b)
			return tuple{n: [3]uint64{uint64(o)}, text: string(c)}, err
		},
		order:  func(a, b tuple) int { return cmp.Or(cmp.Compare(a.text, b.text), numbers(a, b)) },
		golden: map[string]tuple{"64612e622e63000000000001": {n: [3]uint64{1}, text: "a.b.c"}},
	}, {
		name:   "events",
		random: func(rng *rand.Rand) tuple { return tuple{n: [3]uint64{near(rng, 64)}} },
		key:    func(dst []byte, t tuple) []byte { return store.EventKey(dst, t.n[0]) },
		parse: func(b []byte) (tuple, error) {
			id, err := store.ParseEventKey(b)
			return tuple{n: [3]uint64{id}}, err
		},
		order:  numbers,
		golden: map[string]tuple{"650102030405060708": {n: [3]uint64{0x0102030405060708}}},
	}, {
		name:   "dropped_at",
		random: func(rng *rand.Rand) tuple { return tuple{n: [3]uint64{near(rng, 64), near(rng, 40)}} },
		key: func(dst []byte, t tuple) []byte {
			return store.DroppedAtKey(dst, t.n[0], store.Ordinal(t.n[1]))
		},
		parse: func(b []byte) (tuple, error) {
			id, o, err := store.ParseDroppedAtKey(b)
			return tuple{n: [3]uint64{id, uint64(o)}}, err
		},
		order:  numbers,
		golden: map[string]tuple{"4200000000000000010000000002": {n: [3]uint64{1, 2}}},
	}, {
		name:   "superseded",
		random: func(rng *rand.Rand) tuple { return tuple{n: [3]uint64{near(rng, 64), near(rng, 40), near(rng, 32)}} },
		key: func(dst []byte, t tuple) []byte {
			return store.SupersededKey(dst, t.n[0], store.Ordinal(t.n[1]), uint32(t.n[2]))
		},
		parse: func(b []byte) (tuple, error) {
			id, o, block, err := store.ParseSupersededKey(b)
			return tuple{n: [3]uint64{id, uint64(o), uint64(block)}}, err
		},
		order:  numbers,
		golden: map[string]tuple{"760000000000000001000000000200000003": {n: [3]uint64{1, 2, 3}}},
	}, {
		name:   "pending",
		random: func(rng *rand.Rand) tuple { return tuple{n: [3]uint64{near(rng, 32), near(rng, 8), near(rng, 64)}} },
		key: func(dst []byte, t tuple) []byte {
			return store.PendingRowKey(dst, store.PendingKey{Host: uint32(t.n[0]), Priority: uint8(t.n[1]), Enqueue: t.n[2]})
		},
		parse: func(b []byte) (tuple, error) {
			k, err := store.ParsePendingRowKey(b)
			return tuple{n: [3]uint64{uint64(k.Host), uint64(k.Priority), k.Enqueue}}, err
		},
		order:  numbers,
		golden: map[string]tuple{"7000000001020000000000000003": {n: [3]uint64{1, 2, 3}}},
	}, {
		name:   "retries",
		random: func(rng *rand.Rand) tuple { return tuple{n: [3]uint64{near(rng, 63)}, text: randomDID(rng)} },
		key:    func(dst []byte, t tuple) []byte { return store.RetryKey(dst, int64(t.n[0]), did(t)) },
		parse: func(b []byte) (tuple, error) {
			due, s, err := store.ParseRetryKey(b)
			return tuple{n: [3]uint64{uint64(due)}, text: s}, err
		},
		order:  func(a, b tuple) int { return cmp.Or(numbers(a, b), compareDIDs(a.text, b.text)) },
		golden: map[string]tuple{"7100000000683af1300125aa8fb6f9c3a8df64f789e5ee3919": {n: [3]uint64{1748693296}, text: plc}},
	}, {
		name: "buffered",
		random: func(rng *rand.Rand) tuple {
			return tuple{text: randomDID(rng), rev: randomText(rng, "2z\x00\x01\x02\xff", 13, 13)}
		},
		key: func(dst []byte, t tuple) []byte { return store.BufferKey(dst, did(t), t.rev) },
		parse: func(b []byte) (tuple, error) {
			s, rev, err := store.ParseBufferKey(b)
			return tuple{text: s, rev: rev}, err
		},
		order:  func(a, b tuple) int { return cmp.Or(compareDIDs(a.text, b.text), cmp.Compare(a.rev, b.rev)) },
		golden: map[string]tuple{"6c0125aa8fb6f9c3a8df64f789e5ee3919" + hex.EncodeToString([]byte("3kaaaaaaaaaaa")): {text: plc, rev: "3kaaaaaaaaaaa"}},
	}}
}

// subscriptionKeyType returns the keys of a keyspace of subscriptions.
func subscriptionKeyType(space byte) keyType {
	return keyType{
		name:   store.SpaceNames[space],
		random: func(rng *rand.Rand) tuple { return tuple{text: randomText(rng, "-.09az\x00\xff", 1, 6)} },
		key:    func(dst []byte, t tuple) []byte { return store.SubscriptionKey(dst, space, t.text) },
		parse: func(b []byte) (tuple, error) {
			name, err := store.ParseSubscriptionKey(space, b)
			return tuple{text: name}, err
		},
		order:  func(a, b tuple) int { return cmp.Compare(a.text, b.text) },
		golden: map[string]tuple{hex.EncodeToString([]byte{space}) + "746170": {text: "tap"}},
	}
}

func maintenanceKeyType() keyType {
	return keyType{
		name:   "maintenance",
		random: func(rng *rand.Rand) tuple { return tuple{text: randomText(rng, "-.09az\x00\xff", 1, 6)} },
		key:    func(dst []byte, t tuple) []byte { return store.MaintenanceKey(dst, t.text) },
		parse: func(b []byte) (tuple, error) {
			name, err := store.ParseMaintenanceKey(b)
			return tuple{text: name}, err
		},
		order:  func(a, b tuple) int { return cmp.Compare(a.text, b.text) },
		golden: map[string]tuple{"497072756e65": {text: "prune"}},
	}
}

func segmentKeyType() keyType {
	return keyType{
		name:   "segments",
		random: func(rng *rand.Rand) tuple { return tuple{n: [3]uint64{near(rng, 63)}} },
		key:    func(dst []byte, t tuple) []byte { return store.SegmentKey(dst, t.n[0]) },
		parse: func(b []byte) (tuple, error) {
			first, err := store.ParseSegmentKey(b)
			return tuple{n: [3]uint64{first}}, err
		},
		order:  numbers,
		golden: map[string]tuple{"4a0102030405060708": {n: [3]uint64{0x0102030405060708}}},
	}
}

func totalKeyType() keyType {
	return keyType{
		name:   "totals",
		random: func(rng *rand.Rand) tuple { return tuple{text: randomText(rng, ".-az", 0, 6)} },
		key:    func(dst []byte, t tuple) []byte { return store.TotalKey(dst, []byte(t.text)) },
		parse: func(b []byte) (tuple, error) {
			c, err := store.ParseTotalKey(b)
			return tuple{text: string(c)}, err
		},
		order:  func(a, b tuple) int { return cmp.Compare(a.text, b.text) },
		golden: map[string]tuple{"4d00": {}, "4d612e622e6300": {text: "a.b.c"}},
	}
}

func dayKeyType() keyType {
	return keyType{
		name: "days",
		random: func(rng *rand.Rand) tuple {
			return tuple{n: [3]uint64{near(rng, 32)}, text: randomText(rng, ".-az", 0, 6)}
		},
		key: func(dst []byte, t tuple) []byte { return store.DayKey(dst, uint32(t.n[0]), []byte(t.text)) },
		parse: func(b []byte) (tuple, error) {
			day, c, err := store.ParseDayKey(b)
			return tuple{n: [3]uint64{uint64(day)}, text: string(c)}, err
		},
		order: func(a, b tuple) int { return cmp.Or(numbers(a, b), cmp.Compare(a.text, b.text)) },
		golden: map[string]tuple{"4e00005121": {n: [3]uint64{20769}},
			"4e00005121612e622e63": {n: [3]uint64{20769}, text: "a.b.c"}},
	}
}

// postingKeyType returns the keys of postings.
func postingKeyType() keyType {
	kinds := "\x01\x02\x03"
	return keyType{
		name: store.SpaceNames[store.SpacePosting],
		random: func(rng *rand.Rand) tuple {
			return tuple{n: [3]uint64{near(rng, 48), near(rng, 63)}, kind: randomText(rng, kinds, 1, 1),
				text: randomText(rng, ".-az\x01\xff", 0, 6)}
		},
		key: func(dst []byte, t tuple) []byte {
			list := store.AppendList(nil, store.Kind(t.kind[0]), []byte(t.text))
			return store.PostingKey(dst, t.n[0], list, t.n[1])
		},
		parse: func(b []byte) (tuple, error) {
			bucket, list, first, err := store.ParsePostingKey(b)
			if err != nil {
				return tuple{}, err
			}
			return tuple{n: [3]uint64{bucket, first}, kind: string(list[:1]), text: string(list[1 : len(list)-1])}, nil
		},
		order: func(a, b tuple) int {
			return cmp.Or(cmp.Compare(a.n[0], b.n[0]), cmp.Compare(a.kind, b.kind),
				cmp.Compare(a.text, b.text), cmp.Compare(a.n[1], b.n[1]))
		},
		golden: map[string]tuple{
			"47" + "0000000000000102" + "01" + "612e622e63" + "00" + "0000000010204000": {n: [3]uint64{0x102, 0x10204000}, kind: "\x01", text: "a.b.c"},
			"47" + "0000000000000102" + "03" + "00" + "0000000010204000":                {n: [3]uint64{0x102, 0x10204000}, kind: "\x03"},
		},
	}
}

// markKeyTypes returns the keys of rows of the progress of some work.
func markKeyTypes() []keyType {
	return []keyType{{
		name: "crawls",
		random: func(rng *rand.Rand) tuple {
			return tuple{kind: randomText(rng, "\x01ab\xff", 1, 3), text: randomText(rng, "\x01:a\xff", 1, 4),
				part: randomText(rng, "\x00:a\xff", 0, 4)}
		},
		key: func(dst []byte, t tuple) []byte {
			return store.CrawlKey(dst, store.CrawlList{Kind: t.kind, URL: t.text, Part: t.part})
		},
		parse: func(b []byte) (tuple, error) {
			l, err := store.ParseCrawlKey(b)
			return tuple{kind: l.Kind, text: l.URL, part: l.Part}, err
		},
		order: func(a, b tuple) int {
			return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.text, b.text), cmp.Compare(a.part, b.part))
		},
		golden: map[string]tuple{
			"6b7265706f7300687474703a2f2f6100":                 {kind: "repos", text: "http://a"},
			"6b686f73747300687474703a2f2f6100687474703a2f2f62": {kind: "hosts", text: "http://a", part: "http://b"},
		},
	}, {
		name:   "reconciliations",
		random: func(rng *rand.Rand) tuple { return tuple{text: randomText(rng, "\x00/:a\xff", 1, 6)} },
		key:    func(dst []byte, t tuple) []byte { return store.ReconcileKey(dst, t.text) },
		parse: func(b []byte) (tuple, error) {
			url, err := store.ParseReconcileKey(b)
			return tuple{text: url}, err
		},
		order:  func(a, b tuple) int { return cmp.Compare(a.text, b.text) },
		golden: map[string]tuple{"43687474703a2f2f61": {text: "http://a"}},
	}, {
		name:   "describe_retries",
		random: func(rng *rand.Rand) tuple { return tuple{text: randomDID(rng)} },
		key:    func(dst []byte, t tuple) []byte { return store.DescribeKey(dst, t.text) },
		parse: func(b []byte) (tuple, error) {
			did, err := store.ParseDescribeKey(b)
			return tuple{text: did}, err
		},
		order:  func(a, b tuple) int { return compareDIDs(a.text, b.text) },
		golden: map[string]tuple{"440125aa8fb6f9c3a8df64f789e5ee3919": {text: plc}},
	}}
}

func TestKeyRoundTrip(t *testing.T) {
	t.Parallel()
	for _, k := range keyTypes() {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			rng := seeded(t)
			for range 3000 {
				x := k.random(rng)
				b := k.key([]byte("kept"), x)
				if got, err := k.parse(b[4:]); err != nil || got != x || string(b[:4]) != "kept" {
					t.Fatalf("%+v is %x and parses as %+v, %v", x, b, got, err)
				}
			}
		})
	}
}

// TestKeyOrder: the order of keys is the order of their parts.
func TestKeyOrder(t *testing.T) {
	t.Parallel()
	for _, k := range keyTypes() {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			rng := seeded(t)
			for range 3000 {
				x, y := k.random(rng), k.random(rng)
				if got, want := bytes.Compare(k.key(nil, x), k.key(nil, y)), k.order(x, y); got != want {
					t.Fatalf("%+v and %+v compare as %d, their keys %x and %x as %d", x, y, want, k.key(nil, x), k.key(nil, y), got)
				}
			}
		})
	}
}

func TestKeyGolden(t *testing.T) {
	t.Parallel()
	for _, k := range keyTypes() {
		for want, x := range k.golden {
			if got := hex.EncodeToString(k.key(nil, x)); got != want {
				t.Errorf("%s %+v: %s, want %s", k.name, x, got, want)
			}
		}
	}
	for want, got := range map[string][]byte{
		"61666f726d6174":     store.MetaKey("format"),
		"637265706f73":       store.CountKey("repos"),
		"68612e623a38303830": store.HostKey("a.b:8080"),
		"6901020304":         store.HostNameKey(0x01020304),
		"6d77733a2f2f612e62": store.CursorKey("ws://a.b"),
		"7777733a2f2f612e62": store.SourceKey("ws://a.b"),
		"7a77733a2f2f612e62": store.ProgressKey("ws://a.b"),
	} {
		if hex.EncodeToString(got) != want {
			t.Errorf("%q: %x, want %s", got, got, want)
		}
	}
}

// TestKeysWithinOrdinal: all keys of one ordinal lie between its prefix and the next.
func TestKeysWithinOrdinal(t *testing.T) {
	t.Parallel()
	rng := seeded(t)
	for range 1000 {
		o := store.Ordinal(near(rng, 40))
		if o == store.OrdinalMax {
			continue
		}
		k := store.RecordKey(nil, o, []byte(randomText(rng, "\x00\xff", 1, 9)))
		if bytes.Compare(k, store.OrdinalKey(nil, store.SpaceRecord, o)) < 0 || bytes.Compare(k, store.OrdinalKey(nil, store.SpaceRecord, o+1)) >= 0 {
			t.Fatalf("%x lies outside of ordinal %d", k, o)
		}
	}
}

// TestDIDForms: DIDs that look like did:plc and are not canonical keep their own key.
func TestDIDForms(t *testing.T) {
	t.Parallel()
	for _, did := range []string{
		plc,                                      // canonical: 16 bytes
		storetest.DID(0), storetest.DID(1 << 40), // the edges of the alphabet
		"did:plc:" + strings.Repeat("7", 24),
		strings.ToUpper(plc), "did:plc:" + strings.ToUpper(plc[8:]), // upper case is another DID
		plc[:31], plc + "a", "did:plc:", // wrong length
		plc[:30] + "01", plc[:31] + "8", plc[:31] + "=", // not base32
		// the decoder of base32 skips line ends
		plc[:31] + "\n", "\r" + plc[:31], plc[:8] + "\n" + plc[8:31],
		// other methods; the caller's to refuse
		"did:web:example.com", "did:web:localhost%3A1234", "did:key:zQ3sh", "",
		"did:web:" + strings.Repeat("a", 0xffff-8), // the longest
	} {
		b := store.AppendDID(nil, did)
		if got, err := store.ParseDID(b); err != nil || got != did {
			t.Errorf("%.60q is %.40x and parses as %.60q, %v", did, b, got, err)
		}
		if canonical := b[0] == 1; canonical != (len(did) == 32 && strings.HasPrefix(did, "did:plc:") && strings.Trim(did[8:], "abcdefghijklmnopqrstuvwxyz234567") == "") {
			t.Errorf("%.60q is %.40x", did, b)
		}
	}
}

// TestKeysRefused: a key of another length or keyspace is corruption.
func TestKeysRefused(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for _, k := range keyTypes() {
		b := k.key(nil, k.random(rng))
		other := append([]byte{b[0] ^ 0x20}, b[1:]...)
		for _, bad := range [][]byte{nil, {}, b[:1], other} {
			if _, err := k.parse(bad); !errors.Is(err, store.ErrCorrupt) {
				t.Errorf("%s %x: %v", k.name, bad, err)
			}
		}
	}
}

func FuzzParseKeys(f *testing.F) {
	types := keyTypes()
	rng := rand.New(rand.NewPCG(1, 2))
	for _, k := range types {
		for range 5 {
			f.Add(k.key(nil, k.random(rng)))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, k := range types {
			x, err := k.parse(b)
			if err != nil {
				if !errors.Is(err, store.ErrCorrupt) {
					t.Errorf("%s %x: %v", k.name, b, err)
				}
				continue
			}
			again := k.key(nil, x)
			if y, err := k.parse(again); err != nil || y != x {
				t.Errorf("%s %x: %+v is %x and parses as %+v, %v", k.name, b, x, again, y, err)
			}
		}
	})
}
