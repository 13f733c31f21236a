package deliver

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"cistern/api/deliver/format"
	"cistern/api/deliver/wsframe"
	"cistern/api/wire"
)

// form reads in which form a stream is sent: include, compress and batch.
func (q params) form(r *http.Request, s *subscription) error {
	switch include := url.Values(q).Get("include"); include {
	case "":
	case "cbor":
		s.variant.CBOR = true
	default:
		return wire.Invalid("include %s: only cbor can be included", wire.Echo(include))
	}
	switch compress := url.Values(q).Get("compress"); compress {
	case "":
		if s.deflates = offersDeflate(r.Header); s.deflates {
			s.variant.Compression = format.Deflate
		}
	case "zstd":
		s.variant.Compression = format.Zstd
	default:
		return wire.Invalid("compress %s: want zstd, or leave it out and offer permessage-deflate",
			wire.Echo(compress))
	}
	text, err := q.single("batch")
	if err != nil || text == "" {
		return err
	}
	if s.batch, err = strconv.Atoi(text); err != nil || s.batch < 1 || s.batch > batchMax {
		return wire.Invalid("batch %s: want a whole number from 1 to %d", wire.Echo(text), batchMax)
	}
	return nil
}

// extensions is the header in which the peers of a WebSocket agree on extensions.
const extensions = "Sec-Websocket-Extensions"

// offersDeflate reports whether a consumer offers permessage-deflate in a way that can be accepted:
// without a limit of the server's window. It leaves only that offer in the header, so that the
// library, which decides by itself what to accept, comes to the same answer.
func offersDeflate(h http.Header) bool {
	for _, line := range h[extensions] {
		for offer := range strings.SplitSeq(line, ",") {
			name, parameters, _ := strings.Cut(offer, ";")
			if strings.TrimSpace(name) == "permessage-deflate" &&
				!strings.Contains(parameters, "server_max_window_bits") {
				h[extensions] = []string{"permessage-deflate"}
				return true
			}
		}
	}
	return false
}

// elements returns the variant of the format in which events are encoded. Arrays of them are
// compressed as a whole.
func (s *subscription) elements() format.Variant {
	v := s.variant
	if s.batch > 0 {
		v.Compression = format.Plain
	}
	return v
}

// message returns the frame of a message that is not an event: on a stream with batches, an array
// of it.
func (u *subscriber) message(m []byte) []byte {
	if u.batch == 0 {
		return u.format.Append(nil, m)
	}
	m = append(append([]byte("["), m...), ']')
	return u.formats.Cistern(u.variant).Append(nil, m)
}

// makeArrays replaces the frames in s, each of one event, by frames of arrays.
func (u *subscriber) makeArrays(s *scratch) {
	f := u.formats.Cistern(u.variant)
	s.arrays, s.array = s.arrays[:0], s.array[:0]
	n := 0
	for _, frames := range s.frames {
		for len(frames) > 0 {
			var event []byte
			event, frames = wsframe.Payload(frames)
			separator := byte(',')
			if n%u.batch == 0 {
				separator = '['
			}
			s.array = append(append(s.array, separator), event...)
			if n++; n%u.batch == 0 {
				s.arrays = f.Append(s.arrays, append(s.array, ']'))
				s.array = s.array[:0]
			}
		}
	}
	if len(s.array) > 0 {
		s.arrays = f.Append(s.arrays, append(s.array, ']'))
	}
	clear(s.frames)
	s.frames = append(s.frames[:0], s.arrays)
}
