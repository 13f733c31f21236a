package simnet

import (
	"encoding/binary"
	"io"

	"cistern/ingest/repo"
)

// block is one block of a CAR.
type block struct {
	cid  repo.CID
	data []byte
	leaf bool // a record, not a tree node
}

// appendCARHeader writes the header of a CAR v1, usually with one root.
func appendCARHeader(dst []byte, roots ...repo.CID) []byte {
	list := make([]any, len(roots))
	for i, root := range roots {
		list[i] = root
	}
	header := appendValue(nil, map[string]any{"roots": list, "version": 1})
	return append(binary.AppendUvarint(dst, uint64(len(header))), header...)
}

func appendCARBlock(dst []byte, b block) []byte {
	dst = binary.AppendUvarint(dst, uint64(repo.CIDBytes+len(b.data)))
	return append(b.cid.AppendBytes(dst), b.data...)
}

// appendClutter writes blocks that no tree names: raw, dag-pb of version 0, and identity.
func appendClutter(dst []byte) []byte {
	digest := repo.HashCID(nil)
	for _, section := range []string{
		"\x01\x55\x12\x20" + string(digest[:]),
		"\x12\x20" + string(digest[:]) + "a node", "\x01\x71\x00\x01\xa0\xa0",
	} {
		dst = append(binary.AppendUvarint(dst, uint64(len(section))), section...)
	}
	return dst
}

// encodeCAR is a whole CAR in memory.
func encodeCAR(root repo.CID, blocks []block) []byte {
	size := 64
	for _, b := range blocks {
		size += len(b.data) + repo.CIDBytes + 4
	}
	car := appendCARHeader(make([]byte, 0, size), root)
	for _, b := range blocks {
		car = appendCARBlock(car, b)
	}
	return car
}

// writeCAR streams a CAR through one buffer, with clutter before its blocks and after them if
// wanted.
func writeCAR(w io.Writer, root repo.CID, blocks []block, clutter bool) error {
	const flushBytes = 64 << 10
	buf := appendCARHeader(make([]byte, 0, flushBytes+8<<10), root)
	if clutter {
		buf = appendClutter(buf)
	}
	for _, b := range blocks {
		buf = appendCARBlock(buf, b)
		if len(buf) < flushBytes {
			continue
		}
		if _, err := w.Write(buf); err != nil {
			return err
		}
		buf = buf[:0]
	}
	if clutter {
		buf = appendClutter(buf)
	}
	_, err := w.Write(buf)
	return err
}
