package deliver

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"

	"cistern/api/deliver/format"
	"cistern/api/wire"
	"cistern/filter"
	"cistern/store"
)

// Jetstream2 answers the subscription network.bsky.jetstream.subscribeEvents.
func (d *Delivery) Jetstream2(w http.ResponseWriter, r *http.Request) error {
	s, err := d.subscribe2(r)
	if err != nil {
		return err
	}
	return d.open(w, r, s)
}

// subscribe2 reads the parameters.
func (d *Delivery) subscribe2(r *http.Request) (s subscription, err error) {
	q, err := parseParams(r)
	if err != nil {
		return s, err
	}
	for _, old := range []struct{ name, now string }{
		{"wantedCollections", "collections"}, {"wantedDids", "dids"}, {"requireHello", ""},
	} {
		if q.has(old.name) {
			return s, wire.Invalid("%s is a parameter of /subscribe. Here it is %s",
				old.name, orNothing(old.now))
		}
	}
	if q.get("compress") == "true" || r.Header.Get("Socket-Encoding") != "" {
		return s, wire.Invalid("compress=true and Socket-Encoding are of /subscribe. Here it is " +
			"zstdDictionary, with the id of a dictionary")
	}
	s = subscription{protocol: jetstream2}
	var errs [4]error
	s.position, errs[0] = q.jetstreamPosition()
	s.filter, errs[1] = q.filter2()
	s.most, errs[2] = q.size2()
	s.format, errs[3] = d.format2(q)
	for _, err := range errs { // the first one: each is an answer
		if err != nil {
			return s, err
		}
	}
	return s, nil
}

func orNothing(name string) string {
	if name == "" {
		return "not supported"
	}
	return name
}

// kinds2 are the kinds of events, as a filter has them. Of kind sync, "", the log has none.
var kinds2 = map[string]string{"commit": "record", "identity": "identity",
	"account": "account", "sync": ""}

// filter2 reads what a consumer wants. Lists are given by repetition.
func (q params) filter2() (*filter.Events, error) {
	for _, list := range []struct {
		name string
		max  int
	}{{"kinds", len(kinds2)}, {"dids", jetstreamDIDsMax}, {"collections", jetstreamCollectionsMax}} {
		if n := len(q[list.name]); n > list.max {
			return nil, wire.Invalid("%s is given %d times: at most %d", list.name, n, list.max)
		}
	}
	c := filter.EventsConfig{Collections: q["collections"], DIDs: q["dids"]}
	for _, word := range q["kinds"] {
		kind, ok := kinds2[word]
		if !ok {
			return nil, wire.Invalid("kind %s is none of commit, identity, account, sync", wire.Echo(word))
		}
		if kind != "" {
			c.Kinds = append(c.Kinds, kind)
		}
	}
	if len(c.Collections) > 0 && len(q["kinds"]) > 0 && !slices.Contains(c.Kinds, "record") {
		return nil, wire.Invalid(
			"collections with kinds that lack commit: no event would have a collection")
	}
	f, err := compileJetstream(c)
	if err == nil && len(q["kinds"]) > 0 && len(c.Kinds) == 0 {
		f = filter.NoEvents()
	}
	return f, err
}

// size2 reads the size of the longest message.
func (q params) size2() (uint32, error) {
	text, err := q.single("maxMessageSizeBytes")
	if err != nil || text == "" {
		return 0, err
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, wire.Invalid("maxMessageSizeBytes %s: want a whole number from 0 to %d",
			wire.Echo(text), uint32(math.MaxUint32))
	}
	return uint32(n), nil
}

// format2 returns the format that a consumer can read.
func (d *Delivery) format2(q params) (*format.Format, error) {
	text, err := q.single("zstdDictionary")
	if err != nil || text == "" {
		return format.Jetstream2, err
	}
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil || id == 0 {
		return nil, wire.Invalid("zstdDictionary %s: want the id of a dictionary, from 1 to %d",
			wire.Echo(text), uint32(math.MaxUint32))
	}
	if uint32(id) != d.formats.DictionaryID {
		return nil, wire.Refuse("UnknownZstdDictionary",
			"dictionary %d is unknown: the current one is %d, from getZstdDictionary",
			id, d.formats.DictionaryID)
	}
	return d.formats.Jetstream2Zstd, nil
}

// jetstream2 is version 2 of Jetstream.
var jetstream2 = &protocol{
	subprotocols: []string{"xrpc.v1.json"},
	locate:       locate2,
	message: func(int, []byte) (*change, error) {
		return nil, invalidMessage("this stream takes no messages")
	},
	failure: func(name, message string) []byte {
		switch name {
		case "InvalidRequest": // not among the errors of this stream
			return nil
		case "OutdatedCursor":
			name = cursorTooOld
		}
		return failed("$type", name, message)
	},
}

const cursorTooOld = "CursorTooOld"

// locate2 refuses a number below the oldest event kept. A time before that event is that event, as
// the first message says.
func locate2(ctx context.Context, log Log, s *subscription) error {
	asked := s.position
	if err := settle(log, &s.position); err != nil {
		return err
	}
	if !asked.given {
		return nil
	}
	if asked.cursor < timeCursors {
		if !s.given {
			return nil
		}
		_, err := oldest(ctx, log, max(s.cursor, 1))
		if !errors.Is(err, store.ErrOutdatedCursor) {
			return err
		}
		floor, err := oldest(ctx, log, 0)
		if err != nil {
			return err
		}
		return wire.Refuse(cursorTooOld, "cursor %d is below the oldest event kept, which is %d",
			asked.cursor, floor)
	}
	floor, err := oldest(ctx, log, 0)
	if err != nil || s.cursor != floor || floor == 1 && !s.given {
		return err
	}
	// The oldest event is later than the cursor if it is the first one also a microsecond later.
	after, err := log.FirstSince(int64(min(asked.cursor, math.MaxInt64-1)) + 1)
	if err == nil && after == floor {
		s.first = format.Jetstream2Info("OutdatedCursor",
			fmt.Sprintf("the cursor is before the oldest event kept: the stream begins at seq %d", floor))
	}
	return err
}
