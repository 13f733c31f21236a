package deliver

import (
	_ "embed"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"cistern/api/wire"

	"github.com/klauspost/compress/zstd"
)

// dictionary2 is the zstd dictionary of Jetstream v2. testdata/dictionary tells how to make it.
//
//go:embed jetstream2.dict
var dictionary2 string

// encodersMax bounds the encoders of a format, of about 1 MiB each.
const encodersMax = 4

// dictionaryOf returns the id of a zstd dictionary, and the format of which each message is one
// zstd frame with it. Without a dictionary there is no format.
func dictionaryOf(f *format, dictionary []byte) (uint32, *format, error) {
	if len(dictionary) == 0 {
		return 0, nil, nil
	}
	d, err := zstd.InspectDictionary(dictionary)
	if err != nil {
		return 0, nil, fmt.Errorf("zstd dictionary of %s: %w", f.name, err)
	}
	z, err := zstd.NewWriter(nil, zstd.WithEncoderDict(dictionary), zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true), zstd.WithEncoderConcurrency(encodersMax))
	if err != nil {
		return 0, nil, fmt.Errorf("zstd dictionary of %s: %w", f.name, err)
	}
	return d.ID(), &format{name: f.name + "+zstd", encoder: f.encoder, zstd: z}, nil
}

// ZstdDictionary answers network.bsky.jetstream.getZstdDictionary.
func (d *Delivery) ZstdDictionary(w http.ResponseWriter, r *http.Request) error {
	q, err := parseParams(r)
	if err != nil {
		return err
	}
	text, err := q.single("id")
	if err != nil {
		return err
	}
	current := strconv.FormatUint(uint64(d.dictionary2ID), 10)
	if q.has("id") {
		id, err := strconv.ParseUint(text, 10, 32)
		if err != nil || id == 0 {
			return wire.Invalid("id %s: want the id of a dictionary, a whole number from 1 on", wire.Echo(text))
		}
		if uint32(id) != d.dictionary2ID {
			return wire.Refuse("DictionaryNotFound", "dictionary %d is unknown: the current one is %s", id, current)
		}
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Cache-Control", "public, max-age=86400")
	if q.has("id") {
		h.Set("Cache-Control", "public, max-age=31536000, immutable") // an id stands for the same bytes for ever
	}
	h.Set("ETag", `"zstd-dict-`+current+`"`)
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(dictionary2))
	return nil
}
