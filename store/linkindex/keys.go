package linkindex

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"cistern/store"
)

// The keys of the index. Numbers are big-endian, so that rows are in their order.
//
//	'a' did                                    → account(4)
//	'b' account(4)                             → did
//	'c' target(10) source(4)                   → links, accounts (varints; merged by addition)
//	'd' target(10) source(4) account(4) arrival(6) → empty: the links of one account
//	'l' target(10) source(4) arrival(6)        → account(4) rkey: the links, by arrival
//	'm'                                        → state
//	'r' account(4) collection(4) rkey          → arrival(6), and target(10) source(4) of each link
//	's' source(4)                              → collection 0 path
//	't' collection 0 path                      → source(4)
//
// A target is the beginning of SHA-256 over a secret of the index and the text. 80 bits: of four
// billion targets, any two are equal with a probability of 1 in 150,000, and the secret keeps an
// attacker from computing two that are. A source is a collection and a path; the number of a
// collection is that of the source with an empty path, which no link has.
const (
	spaceAccount    = 'a'
	spaceDID        = 'b'
	spaceCount      = 'c'
	spaceDistinct   = 'd'
	spaceLink       = 'l'
	spaceState      = 'm'
	spaceRecord     = 'r'
	spaceSource     = 's'
	spaceSourceText = 't'
)

const (
	targetBytes  = 10
	numberBytes  = 4
	arrivalBytes = 6
	groupBytes   = 1 + targetBytes + numberBytes
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
func targetOf(secret []byte, target string) group {
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

// parseGroup reads what append wrote. b has at least groupBytes-1 bytes.
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

func groupKey(b []byte, space byte, g group) []byte { return g.append(append(b[:0], space)) }

func linkKey(b []byte, g group, arrival uint64) []byte {
	return appendArrival(groupKey(b, spaceLink, g), arrival)
}

func distinctKey(b []byte, g group, account uint32, arrival uint64) []byte {
	return appendArrival(accountOfGroupKey(b, g, account), arrival)
}

// accountOfGroupKey is before all rows of the links of an account.
func accountOfGroupKey(b []byte, g group, account uint32) []byte {
	return binary.BigEndian.AppendUint32(groupKey(b, spaceDistinct, g), account)
}

// parseDistinct reads the account and the arrival of a row of spaceDistinct.
func parseDistinct(key []byte) (account uint32, arrival uint64, err error) {
	if len(key) != groupBytes+numberBytes+arrivalBytes {
		return 0, 0, damaged("key", key)
	}
	return binary.BigEndian.Uint32(key[groupBytes:]), parseArrival(key[groupBytes+numberBytes:]), nil
}

func parseLinkKey(key []byte) (g group, arrival uint64, err error) {
	if len(key) != groupBytes+arrivalBytes {
		return g, 0, damaged("key", key)
	}
	return parseGroup(key[1:]), parseArrival(key[groupBytes:]), nil
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

func textKey(b []byte, space byte, text string) []byte { return append(append(b[:0], space), text...) }

// parseLinks reads the value of a row of spaceRecord, and appends its links to groups.
func parseLinks(value []byte, groups []group) (arrival uint64, all []group, err error) {
	if len(value) < arrivalBytes || (len(value)-arrivalBytes)%(groupBytes-1) != 0 {
		return 0, groups, damaged("value", value)
	}
	arrival = parseArrival(value)
	for v := value[arrivalBytes:]; len(v) > 0; v = v[groupBytes-1:] {
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
