package repo

import "errors"

// A tree node is, in strict DAG-CBOR,
//
//	{"e": [{"k": suffix, "p": prefix length, "t": link or null, "v": link}…], "l": link or null}
//
// where "l" is the subtree left of the first key, "t" the one right of a key, and "v" the record.

// nodeEntry has the positions of the parts of an entry in the node's bytes.
type nodeEntry struct {
	suffix    uint32 // offset
	suffixLen uint16
	prefixLen uint16
	right     uint32 // offset of the digest, 0 for null
	value     uint32 // offset of the digest

	// Where the blocks are in the body; set when the node is entered.
	rightPos uint64
	valuePos uint64
}

var (
	errNodeForm   = errors.New("node is not a map of e and l in strict DAG-CBOR")
	errNodeEntry  = errors.New("entry is not a map of k, p, t and v in strict DAG-CBOR")
	errKeyLength  = errors.New("key is empty or longer than 1024 bytes")
	errKeyPrefix  = errors.New("prefix length exceeds the previous key")
	errKeyShared  = errors.New("prefix length is less than what the keys share")
	errKeyOrder   = errors.New("keys are not in ascending order")
	errKeyLayer   = errors.New("key is not at the layer its hash demands")
	errNodeEmpty  = errors.New("node has neither entries nor a subtree")
	errNodeTop    = errors.New("top node has a subtree but no entries")
	errNodeLayer  = errors.New("subtree below layer 0")
	errNodeCount  = errors.New("tree has more nodes than the CAR has blocks")
	errTreeLayers = errors.New("tree has more than 32 layers")
)

// parseNode appends the node's entries to dst and returns the offset of the left subtree's
// digest, 0 for null.
func parseNode(dst []nodeEntry, b []byte) (entries []nodeEntry, left uint32, err error) {
	at, ok := literal(b, 0, "\xa2\x61e")
	if !ok {
		return dst, 0, errNodeForm
	}
	major, n, at, ok := Head(b, at)
	if !ok || major != MajorArray {
		return dst, 0, errNodeForm
	}
	for range n {
		var e nodeEntry
		if at, err = parseNodeEntry(&e, b, at); err != nil {
			return dst, 0, err
		}
		dst = append(dst, e)
	}
	if at, ok = literal(b, at, "\x61l"); !ok {
		return dst, 0, errNodeForm
	}
	if left, at, ok = linkOrNull(b, at); !ok || at != len(b) {
		return dst, 0, errNodeForm
	}
	return dst, left, nil
}

// The keys of an entry are compared with constants in place, which the compiler does without a
// call: this is the innermost loop of a walk.
func parseNodeEntry(e *nodeEntry, b []byte, at int) (next int, err error) {
	if len(b)-at < 3 || string(b[at:at+3]) != "\xa4\x61k" {
		return 0, errNodeEntry
	}
	from, to, ok := Span(b, at+3, MajorBytes)
	if !ok || len(b)-to < 2 || string(b[to:to+2]) != "\x61p" {
		return 0, errNodeEntry
	}
	major, prefix, at, ok := Head(b, to+2)
	if !ok || major != MajorUint {
		return 0, errNodeEntry
	}
	if prefix > keyBytesMax || to-from > keyBytesMax {
		return 0, errKeyLength
	}
	if len(b)-at < 2 || string(b[at:at+2]) != "\x61t" {
		return 0, errNodeEntry
	}
	if e.right, at, ok = linkOrNull(b, at+2); !ok || len(b)-at < 2 || string(b[at:at+2]) != "\x61v" {
		return 0, errNodeEntry
	}
	if at, ok = Link(b, at+2); !ok {
		return 0, errNodeEntry
	}
	e.suffix, e.suffixLen, e.prefixLen = uint32(from), uint16(to-from), uint16(prefix)
	e.value = uint32(at - len(CID{}))
	return at, nil
}

// linkOrNull reads a link or null at b[at:]; digest is 0 for null.
func linkOrNull(b []byte, at int) (digest uint32, next int, ok bool) {
	if at < len(b) && b[at] == CBORNull {
		return 0, at + 1, true
	}
	next, ok = Link(b, at)
	return uint32(next - len(CID{})), next, ok
}
