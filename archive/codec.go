package archive

import (
	"fmt"

	"cistern/objects"

	"github.com/fxamacker/cbor/v2"
	"github.com/klauspost/compress/zstd"
)

// codec encodes and decodes parts of segments. It may be used by any goroutine.
type codec struct {
	enc cbor.EncMode
	dec cbor.DecMode
	zip *zstd.Encoder
	un  *zstd.Decoder
}

func newCodec() (c codec, err error) {
	if c.enc, err = cbor.CoreDetEncOptions().EncMode(); err != nil {
		return c, err
	}
	// An index has at most framesMax frames, with at most listsMax + frameEvents lists each.
	c.dec, err = cbor.DecOptions{MaxArrayElements: listsMax + frameEvents, MaxNestedLevels: 8,
		UTF8: cbor.UTF8DecodeInvalid}.DecMode()
	if err != nil {
		return c, err
	}
	if c.zip, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(frameBytes)); err != nil {
		return c, err
	}
	c.un, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(readersMax),
		zstd.WithDecoderMaxMemory(frameBytesMax))
	return c, err
}

func (c codec) encode(v any) ([]byte, error) { return c.enc.Marshal(v) }

// decode decodes bytes of a destination.
func (c codec) decode(b []byte, v any) error {
	if err := c.dec.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: decode %T: %w", objects.ErrDamaged, v, err)
	}
	return nil
}

func (c codec) compress(b []byte) []byte { return c.zip.EncodeAll(b, nil) }

// decompress returns at most frameBytesMax bytes.
func (c codec) decompress(b []byte) ([]byte, error) {
	raw, err := c.un.DecodeAll(b, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: decompress: %w", objects.ErrDamaged, err)
	}
	return raw, nil
}
