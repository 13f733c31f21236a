package deliver

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"cistern/api/deliver/format"
	"cistern/api/wire"
)

// ZstdDictionary answers network.bsky.jetstream.getZstdDictionary and GET /stream/dictionary.
func (d *Delivery) ZstdDictionary(w http.ResponseWriter, r *http.Request) error {
	q, err := parseParams(r)
	if err != nil {
		return err
	}
	text, err := q.single("id")
	if err != nil {
		return err
	}
	current := strconv.FormatUint(uint64(d.formats.DictionaryID), 10)
	if q.has("id") {
		id, err := strconv.ParseUint(text, 10, 32)
		if err != nil || id == 0 {
			return wire.Invalid("id %s: want the id of a dictionary, a whole number from 1 on",
				wire.Echo(text))
		}
		if uint32(id) != d.formats.DictionaryID {
			return wire.Refuse("DictionaryNotFound", "dictionary %d is unknown: the current one is %s",
				id, current)
		}
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Cache-Control", "public, max-age=86400")
	if q.has("id") {
		// an id stands for the same bytes for ever
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	h.Set("ETag", `"zstd-dict-`+current+`"`)
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(format.Dictionary))
	return nil
}
