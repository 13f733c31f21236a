package format

import (
	_ "embed"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// Jetstream2Dictionary is the zstd dictionary of Jetstream v2. testdata/dictionary tells how to
// make it.
//
//go:embed jetstream2.dict
var Jetstream2Dictionary string

// encodersMax bounds the encoders of a format, of about 1 MiB each.
const encodersMax = 4

// Compressed returns the id of a zstd dictionary, and the format of which each message is one
// zstd frame with it. Without a dictionary there is no format.
func Compressed(f *Format, dictionary []byte) (uint32, *Format, error) {
	if len(dictionary) == 0 {
		return 0, nil, nil
	}
	d, err := zstd.InspectDictionary(dictionary)
	if err != nil {
		return 0, nil, fmt.Errorf("zstd dictionary of %s: %w", f.Name, err)
	}
	z, err := zstd.NewWriter(nil, zstd.WithEncoderDict(dictionary), zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true), zstd.WithEncoderConcurrency(encodersMax))
	if err != nil {
		return 0, nil, fmt.Errorf("zstd dictionary of %s: %w", f.Name, err)
	}
	return d.ID(), &Format{Name: f.Name + "+zstd", encoder: f.encoder, zstd: z}, nil
}
