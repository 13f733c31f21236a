package export

import (
	"encoding/binary"
	"io"

	"cistern/ingest/repo"
)

// carWriter writes a CAR (version 1).
type carWriter struct {
	w   io.Writer
	buf []byte
	n   int64 // bytes written
}

// header writes the header. The root is left out if it is zero.
func (c *carWriter) header(root repo.CID) error {
	h := append(c.buf[:0], "\xa2\x65roots"...)
	if root.Defined() {
		h = root.AppendBytes(append(h, "\x81\xd8\x2a\x58\x25\x00"...))
	} else {
		h = append(h, "\x80"...)
	}
	h = append(h, "\x67version\x01"...)
	c.buf = h
	return c.write(binary.AppendUvarint(nil, uint64(len(h))), h)
}

// block writes a block.
func (c *carWriter) block(id repo.CID, block []byte) error {
	c.buf = binary.AppendUvarint(c.buf[:0], uint64(repo.CIDBytes+len(block)))
	c.buf = id.AppendBytes(c.buf)
	return c.write(c.buf, block)
}

func (c *carWriter) write(parts ...[]byte) error {
	for _, p := range parts {
		n, err := c.w.Write(p)
		c.n += int64(n)
		if err != nil {
			return err
		}
	}
	return nil
}
