package format

import (
	"bytes"
	_ "embed"
	"fmt"

	"cistern/api/deliver/wsframe"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
)

// Dictionary is the zstd dictionary of messages. testdata/dictionary tells how to make it.
//
//go:embed messages.dict
var Dictionary string

// encodersMax bounds the encoders of a dictionary, of about 1 MiB each.
const encodersMax = 4

// packing compresses messages, each by itself, so that any stream may begin with any of them.
type packing struct {
	name string
	kind byte // of frame
	pack func(dst, message []byte) []byte
}

// with returns a format whose messages are compressed.
func (f *Format) with(p *packing) *Format {
	return &Format{Name: f.Name + "+" + p.name, NewEncoder: f.NewEncoder, packing: p}
}

// zstdWith returns the id of a zstd dictionary, and a packing that makes each message one zstd
// frame with it.
func zstdWith(dictionary []byte) (uint32, *packing, error) {
	d, err := zstd.InspectDictionary(dictionary)
	if err != nil {
		return 0, nil, fmt.Errorf("zstd dictionary: %w", err)
	}
	z, err := zstd.NewWriter(nil, zstd.WithEncoderDict(dictionary),
		zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false),
		zstd.WithLowerEncoderMem(true), zstd.WithEncoderConcurrency(encodersMax))
	if err != nil {
		return 0, nil, fmt.Errorf("zstd dictionary: %w", err)
	}
	return d.ID(), &packing{name: "zstd", kind: wsframe.Binary,
		pack: func(dst, message []byte) []byte {
			return z.EncodeAll(message, dst)
		}}, nil
}

// deflated compresses by permessage-deflate without context takeover (RFC 7692, section 7.2.1).
var deflated = &packing{name: "deflate", kind: wsframe.Deflated, pack: deflate}

// deflateTail ends what a flush writes, and is not sent.
var deflateTail = []byte{0, 0, 0xff, 0xff}

func deflate(dst, message []byte) []byte {
	out := bytes.NewBuffer(dst)
	// a Buffer has no errors
	_ = flate.StatelessDeflate(out, message, false, nil)
	return bytes.TrimSuffix(out.Bytes(), deflateTail)
}
