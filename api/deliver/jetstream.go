package deliver

import (
	"math"
	"net/url"
	"strconv"
	"time"

	"cistern/api/wire"
	"cistern/filter"
	"cistern/store"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// What both versions of Jetstream have in common.

const (
	// timeCursors is the smallest cursor that is a time in unix microseconds, in 2001. A smaller one
	// is the id of an event.
	timeCursors = 1_000_000_000_000_000
	// jetstreamCollectionsMax and jetstreamDIDsMax bound a filter.
	jetstreamCollectionsMax = 100
	jetstreamDIDsMax        = 10_000
	// invalidHandle stands for a handle that is unknown or does not resolve to its account.
	invalidHandle = "handle.invalid"
	// jetstreamTime is RFC 3339 with exactly six digits of a second.
	jetstreamTime = "2006-01-02T15:04:05.000000Z"
)

// jetstreamPosition reads the cursor. locate turns it into the id of an event.
func (q params) jetstreamPosition() (p position, err error) {
	cursor, err := q.single("cursor")
	if err != nil || cursor == "" {
		return p, err
	}
	if p.cursor, err = strconv.ParseUint(cursor, 10, 63); err != nil {
		return p, wire.Invalid("cursor %s: want a whole number from 0 to %d, unix microseconds or the number of an event",
			wire.Echo(cursor), math.MaxInt64)
	}
	p.given = true
	return p, nil
}

// settle turns a position into the id to begin at. A position that the log has not reached is the
// head: that is usual for a client that begins at the time of its own clock.
func settle(log Log, p *position) error {
	if p.given && p.cursor >= timeCursors {
		id, err := log.FirstSince(int64(p.cursor))
		if err != nil {
			return err
		}
		p.cursor = id
	}
	// The log may have grown during the search, never the other way round.
	if head := log.Head(); !p.given || p.cursor > head {
		p.cursor, p.given = head+1, false
	}
	return nil
}

// compileJetstream returns a filter. Collections of more than jetstreamCollectionsMax different
// patterns are refused, as are more than jetstreamDIDsMax accounts.
func compileJetstream(c filter.EventsConfig) (*filter.Events, error) {
	if n := distinct(c.Collections); n > jetstreamCollectionsMax {
		return nil, wire.Invalid("%d collections: at most %d", n, jetstreamCollectionsMax)
	}
	if n := distinct(c.DIDs); n > jetstreamDIDsMax {
		return nil, wire.Invalid("%d DIDs: at most %d", n, jetstreamDIDsMax)
	}
	return compile(c)
}

func distinct(items []string) int {
	set := make(map[string]struct{}, len(items))
	for _, item := range items {
		set[item] = struct{}{}
	}
	return len(set)
}

// get returns the first value of a parameter.
func (q params) get(name string) string { return url.Values(q).Get(name) }

// has reports whether a parameter is given.
func (q params) has(name string) bool { return url.Values(q).Has(name) }

// appendCommit appends the fields of a record event, the way a commit of Jetstream has them. ok is
// false if the record has no JSON form.
func appendCommit(out []byte, ev *store.Event) (_ []byte, ok bool) {
	out = wire.AppendString(append(out, `"rev":`...), ev.Rev)
	out = append(append(out, `,"operation":"`...), ev.Action.String()...)
	out = wire.AppendString(append(out, `","collection":`...), ev.Collection)
	out = wire.AppendString(append(out, `,"rkey":`...), ev.Rkey)
	if ev.Action == store.Delete {
		return out, true
	}
	out, ok = wire.AppendBody(out, "record", ev.Record)
	return append(ev.CID.AppendText(append(out, `,"cid":"`...)), '"'), ok
}

// appendSubject appends an event of subscribeRepos about an account or its identity, without its
// end. The event of the source is not kept: seq and time come from the log.
func appendSubject(out []byte, ev *store.Event) []byte {
	out = wire.AppendString(append(out, `{"did":`...), ev.DID)
	out = strconv.AppendUint(append(out, `,"seq":`...), ev.ID, 10)
	out = appendTime(append(out, `,"time":`...), ev.Time)
	if ev.Kind == store.KindIdentity {
		handle := ev.Handle
		if _, err := syntax.ParseHandle(handle); err != nil {
			handle = invalidHandle
		}
		return wire.AppendString(append(out, `,"handle":`...), handle)
	}
	out = strconv.AppendBool(append(out, `,"active":`...), !ev.Status.Hidden())
	if status := ev.Status.Word(); status != "" {
		out = wire.AppendString(append(out, `,"status":`...), status)
	}
	return out
}

// appendTime appends a time in unix microseconds.
func appendTime(out []byte, us int64) []byte {
	return append(time.UnixMicro(us).UTC().AppendFormat(append(out, '"'), jetstreamTime), '"')
}
