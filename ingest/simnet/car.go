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

// appendCARHeader writes the header of a CAR v1, whose roots are usually one.
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

// writeCAR streams a CAR through one buffer.
func writeCAR(w io.Writer, root repo.CID, blocks []block) error {
	const flushBytes = 64 << 10
	buf := appendCARHeader(make([]byte, 0, flushBytes+8<<10), root)
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
	_, err := w.Write(buf)
	return err
}
