package format

// Compression is how the messages of a stream are compressed.
type Compression uint8

const (
	// Plain messages are text.
	Plain Compression = iota
	// Zstd makes each message a binary message: one zstd frame with Dictionary.
	Zstd
	// Deflate compresses each message by permessage-deflate (RFC 7692), which the library of the
	// consumer undoes.
	Deflate
	compressions
)

// Variant is a form of Cistern's own format.
type Variant struct {
	CBOR        bool // events have the records also as base64 of their CBOR
	Tokens      bool // events have tokens, as the stream began with a snapshot
	Compression Compression
}

// Set has the formats of one server.
type Set struct {
	// DictionaryID is the id of Dictionary.
	DictionaryID uint32
	// Jetstream1Zstd is compressed with the dictionary that clients of version 1 of Jetstream have
	// built in; nil without it. Jetstream2Zstd is compressed with Dictionary.
	Jetstream1Zstd, Jetstream2Zstd *Format

	cistern map[Variant]*Format
}

// NewSet returns the formats of a store of that epoch. jetstream1 is the dictionary of version 1 of
// Jetstream, nil for none.
func NewSet(epoch string, jetstream1 []byte) (*Set, error) {
	id, zstd, err := zstdWith([]byte(Dictionary))
	if err != nil {
		return nil, err
	}
	s := &Set{DictionaryID: id, Jetstream2Zstd: Jetstream2.with(zstd), cistern: map[Variant]*Format{}}
	if len(jetstream1) > 0 {
		_, own, err := zstdWith(jetstream1)
		if err != nil {
			return nil, err
		}
		s.Jetstream1Zstd = Jetstream1.with(own)
	}
	for v := (Variant{}); v.Compression < compressions; v.Compression++ {
		for _, v.CBOR = range []bool{false, true} {
			for _, v.Tokens = range []bool{false, true} {
				f := cistern(v, epoch)
				switch v.Compression {
				case Zstd:
					f = f.with(zstd)
				case Deflate:
					f = f.with(deflated)
				}
				s.cistern[v] = f
			}
		}
	}
	return s, nil
}

// Cistern returns a form of Cistern's own format, always the same for the same variant.
func (s *Set) Cistern(v Variant) *Format { return s.cistern[v] }
