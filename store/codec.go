package store

import (
	"bytes"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// codec encodes values as deterministic CBOR behind the version byte.
type codec struct {
	enc cbor.UserBufferEncMode
	dec cbor.DecMode
}

func newCodec() (codec, error) {
	enc, err := cbor.CoreDetEncOptions().UserBufferEncMode()
	if err != nil {
		return codec{}, err
	}
	// The encoder does not check that text is valid UTF-8, so the decoder must accept any text.
	dec, err := cbor.DecOptions{MaxArrayElements: entryOpsMax, UTF8: cbor.UTF8DecodeInvalid}.DecMode()
	return codec{enc: enc, dec: dec}, err
}

func (c codec) encode(v any) ([]byte, error) {
	var b bytes.Buffer
	err := c.encodeTo(&b, v)
	return b.Bytes(), err
}

// encodeTo replaces the contents of the buffer by an encoded value.
func (c codec) encodeTo(b *bytes.Buffer, v any) error {
	b.Reset()
	b.WriteByte(valueVersion)
	if err := c.enc.MarshalToBuffer(v, b); err != nil {
		return fmt.Errorf("encode %T: %w", v, err)
	}
	return nil
}

func (c codec) decode(b []byte, v any) error {
	if len(b) == 0 || b[0] != valueVersion {
		return fmt.Errorf("decode %T: version byte %.1x: %w", v, b, ErrCorrupt)
	}
	if err := c.dec.Unmarshal(b[1:], v); err != nil {
		return fmt.Errorf("decode %T: %w: %w", v, err, ErrCorrupt)
	}
	return nil
}
