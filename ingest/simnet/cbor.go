package simnet

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"

	"cistern/ingest/repo"
)

// RawCID is the digest of a blob: a CID of codec raw, unlike repo.CID.
type RawCID [32]byte

// CIDs in binary: version 1, codec, sha2-256, 32 bytes.
const (
	linkPrefix = "\x01\x71\x12\x20"
	blobPrefix = "\x01\x55\x12\x20"
)

// EncodeRecord is v as DAG-CBOR. It takes nil, bool, int, int64, string, []byte, repo.CID, RawCID,
// []any and map[string]any, and panics on anything else.
func EncodeRecord(v map[string]any) []byte { return appendValue(nil, v) }

func appendValue(b []byte, v any) []byte {
	switch t := v.(type) {
	case nil:
		return append(b, 0xf6)
	case bool:
		if t {
			return append(b, 0xf5)
		}
		return append(b, 0xf4)
	case int:
		return appendInt(b, int64(t))
	case int64:
		return appendInt(b, t)
	case string:
		return appendText(b, t)
	case []byte:
		return append(appendHead(b, 2, uint64(len(t))), t...)
	case repo.CID:
		return appendLink(b, linkPrefix, t[:])
	case RawCID:
		return appendLink(b, blobPrefix, t[:])
	case []any:
		b = appendHead(b, 4, uint64(len(t)))
		for _, e := range t {
			b = appendValue(b, e)
		}
		return b
	case map[string]any:
		return appendMap(b, t)
	}
	panic(fmt.Sprintf("simnet: cannot encode %T as DAG-CBOR", v))
}

// appendMap writes the keys in DAG-CBOR's order: shorter first, then by bytes.
func appendMap(b []byte, m map[string]any) []byte {
	b = appendHead(b, 5, uint64(len(m)))
	for _, k := range sortedKeys(m) {
		b = appendValue(appendText(b, k), m[k])
	}
	return b
}

func sortedKeys(m map[string]any) []string {
	keys := slices.AppendSeq(make([]string, 0, len(m)), maps.Keys(m))
	slices.SortFunc(keys, func(x, y string) int {
		if len(x) != len(y) {
			return len(x) - len(y)
		}
		return strings.Compare(x, y)
	})
	return keys
}

func appendInt(b []byte, n int64) []byte {
	if n < 0 {
		return appendHead(b, 1, uint64(-1-n))
	}
	return appendHead(b, 0, uint64(n))
}

func appendText(b []byte, s string) []byte {
	return append(appendHead(b, 3, uint64(len(s))), s...)
}

func appendLink(b []byte, prefix string, digest []byte) []byte {
	b = append(b, 0xd8, 42, 0x58, 37, 0)
	return append(append(b, prefix...), digest...)
}

// appendHead writes a major type and its argument in the shortest form.
func appendHead(b []byte, major byte, n uint64) []byte {
	m := major << 5
	switch {
	case n < 24:
		return append(b, m|byte(n))
	case n < 1<<8:
		return append(b, m|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, m|25), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(b, m|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, m|27), n)
}
