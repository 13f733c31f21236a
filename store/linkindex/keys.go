package linkindex

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"cistern/store"
)

// The keys of the index. Numbers are big-endian, so that rows are in their order.
//
//	'a' did                                       → account(4)
//	'b' account(4)                                → did
//	'e' account(4) target(10) source(4) arrival(6) → empty: the links of one account
//	'g' target(10) 0 source(4)                    → links, accounts (varints; merged by addition)
//	'g' target(10) 1 source(4) arrival(6)         → account(4) rkey: the links, by arrival
//	'm'                                           → state
//	'r' account(4) collection(4) rkey             → arrival(6), and target(10) source(4) of each link
//	's' source(4)                                 → collection 0 path
//	't' collection 0 path                         → source(4)
//
// A target is the beginning of SHA-256 over a secret of the index and the text. 80 bits: of four
// billion targets, any two are equal with a probability of 1 in 150,000, and the secret keeps an
// attacker from computing two that are. A source is a collection and a path; the number of a
// collection is that of the source with an empty path, which no link has.
//
// Accounts get their numbers in the order of imports, so that the rows of 'e' and 'r' that an
// import adds stand behind all others, and no compaction has to merge them. Only 'g' is in another
// order.
const (
	spaceAccount    = 'a'
	spaceDID        = 'b'
	spaceDistinct   = 'e'
	spaceTarget     = 'g'
	spaceState      = 'm'
	spaceRecord     = 'r'
	spaceSource     = 's'
	spaceSourceText = 't'
)

// spaces has every keyspace, in order.
const spaces = "abegmrst"

// The kinds of rows of a target.
const (
	kindCount = 0
	kindLink  = 1
)

const (
	targetBytes  = 10
	numberBytes  = 4
	arrivalBytes = 6
	groupBytes   = targetBytes + numberBytes
	// countKeyBytes is the length of a count's key. A link's key has the arrival behind as much.
	countKeyBytes = 1 + targetBytes + 1 + numberBytes
	// arrivalMax and numberMax are the largest numbers that keys have room for.
	arrivalMax = 1<<(8*arrivalBytes) - 1
	numberMax  = 1<<32 - 1
)

// group is what links are counted by: a target, and the source that they come from.
type group struct {
	high   uint64
	low    uint16
	source uint32
}

// targetOf returns the group of a target without the source.
func targetOf[T string | []byte](secret []byte, target T) group {
	var buf [512]byte
	sum := sha256.Sum256(append(append(buf[:0], secret...), target...))
	return group{high: binary.BigEndian.Uint64(sum[:]), low: binary.BigEndian.Uint16(sum[8:])}
}

func (g group) compare(h group) int {
	switch {
	case g.high != h.high:
		return less(g.high < h.high)
	case g.low != h.low:
		return less(g.low < h.low)
	case g.source != h.source:
		return less(g.source < h.source)
	}
	return 0
}

func less(is bool) int {
	if is {
		return -1
	}
	return 1
}

// append appends the target and the source.
func (g group) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, g.high)
	b = binary.BigEndian.AppendUint16(b, g.low)
	return binary.BigEndian.AppendUint32(b, g.source)
}

// sameTarget reports whether two groups have one target.
func (g group) sameTarget(h group) bool { return g.high == h.high && g.low == h.low }

// parseGroup reads what append wrote. b has at least groupBytes bytes.
func parseGroup(b []byte) group {
	return group{binary.BigEndian.Uint64(b), binary.BigEndian.Uint16(b[8:]),
		binary.BigEndian.Uint32(b[targetBytes:])}
}

func appendArrival(b []byte, arrival uint64) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(arrival>>32))
	return binary.BigEndian.AppendUint32(b, uint32(arrival))
}

func parseArrival(b []byte) uint64 {
	return uint64(binary.BigEndian.Uint16(b))<<32 | uint64(binary.BigEndian.Uint32(b[2:]))
}

// targetKey is before all rows of a kind of a target.
func targetKey(b []byte, g group, kind byte) []byte {
	b = binary.BigEndian.AppendUint64(append(b[:0], spaceTarget), g.high)
	return append(binary.BigEndian.AppendUint16(b, g.low), kind)
}

func countKey(b []byte, g group) []byte { return groupKey(b, g, kindCount) }

// groupKey is before all rows of a kind of a group.
func groupKey(b []byte, g group, kind byte) []byte {
	return binary.BigEndian.AppendUint32(targetKey(b, g, kind), g.source)
}

func linkKey(b []byte, g group, arrival uint64) []byte {
	return appendArrival(groupKey(b, g, kindLink), arrival)
}

func distinctKey(b []byte, g group, account uint32, arrival uint64) []byte {
	return appendArrival(accountOfGroupKey(b, g, account), arrival)
}

// accountOfGroupKey is before all rows of the links of an account in a group.
func accountOfGroupKey(b []byte, g group, account uint32) []byte {
	return g.append(numberKey(b, spaceDistinct, account))
}

// parseDistinct reads the key of a row of spaceDistinct.
func parseDistinct(key []byte) (account uint32, g group, arrival uint64, err error) {
	const at = 1 + numberBytes
	if len(key) != at+groupBytes+arrivalBytes {
		return 0, g, 0, damaged("key", key)
	}
	return binary.BigEndian.Uint32(key[1:]), parseGroup(key[at:]),
		parseArrival(key[at+groupBytes:]), nil
}

// parseTargetKey reads the key of a row of spaceTarget; arrival is 0 in that of a count.
func parseTargetKey(key []byte) (g group, kind byte, arrival uint64, err error) {
	if len(key) < countKeyBytes {
		return g, 0, 0, damaged("key", key)
	}
	g = group{binary.BigEndian.Uint64(key[1:]), binary.BigEndian.Uint16(key[9:]),
		binary.BigEndian.Uint32(key[countKeyBytes-numberBytes:])}
	switch kind = key[1+targetBytes]; {
	case kind == kindCount && len(key) == countKeyBytes:
		return g, kind, 0, nil
	case kind == kindLink && len(key) == countKeyBytes+arrivalBytes:
		return g, kind, parseArrival(key[countKeyBytes:]), nil
	}
	return g, 0, 0, damaged("key", key)
}

// parseLink reads the value of a row of spaceLink.
func parseLink(value []byte) (account uint32, rkey []byte, err error) {
	if len(value) <= numberBytes {
		return 0, nil, damaged("value", value)
	}
	return binary.BigEndian.Uint32(value), value[numberBytes:], nil
}

func recordKey(b []byte, account, collection uint32, rkey []byte) []byte {
	b = numberKey(b, spaceRecord, account)
	return append(binary.BigEndian.AppendUint32(b, collection), rkey...)
}

func parseRecordKey(key []byte) (account, collection uint32, rkey []byte, err error) {
	if len(key) <= 1+2*numberBytes {
		return 0, 0, nil, damaged("key", key)
	}
	return binary.BigEndian.Uint32(key[1:]), binary.BigEndian.Uint32(key[1+numberBytes:]),
		key[1+2*numberBytes:], nil
}

func numberKey(b []byte, space byte, n uint32) []byte {
	return binary.BigEndian.AppendUint32(append(b[:0], space), n)
}

func textKey(b []byte, space byte, text string) []byte {
	return append(append(b[:0], space), text...)
}

// parseLinks reads the value of a row of spaceRecord, and appends its links to groups.
func parseLinks(value []byte, groups []group) (arrival uint64, all []group, err error) {
	if len(value) < arrivalBytes || (len(value)-arrivalBytes)%groupBytes != 0 {
		return 0, groups, damaged("value", value)
	}
	arrival = parseArrival(value)
	for v := value[arrivalBytes:]; len(v) > 0; v = v[groupBytes:] {
		groups = append(groups, parseGroup(v))
	}
	return arrival, groups, nil
}

func appendCounts(b []byte, c Counts) []byte {
	return binary.AppendVarint(binary.AppendVarint(b, c.Records), c.DIDs)
}

func parseCounts(value []byte) (c Counts, err error) {
	var n, m int
	c.Records, n = binary.Varint(value)
	if n > 0 {
		c.DIDs, m = binary.Varint(value[n:])
	}
	if n <= 0 || m <= 0 || n+m != len(value) {
		return c, damaged("count", value)
	}
	return c, nil
}

func parseNumber(value []byte) (uint32, error) {
	if len(value) != numberBytes {
		return 0, damaged("number", value)
	}
	return binary.BigEndian.Uint32(value), nil
}

func damaged(what string, b []byte) error {
	return fmt.Errorf("%s %.60x of the index of links: %w", what, b, store.ErrCorrupt)
}
