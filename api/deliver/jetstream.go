package deliver

import (
	"math"
	"net/url"
	"strconv"

	"cistern/api/wire"
	"cistern/filter"
)

// What both versions of Jetstream have in common.

const (
	// timeCursors is the smallest cursor that is a time in unix microseconds, in 2001. A smaller one
	// is the id of an event.
	timeCursors = 1_000_000_000_000_000
	// jetstreamCollectionsMax and jetstreamDIDsMax bound a filter.
	jetstreamCollectionsMax = 100
	jetstreamDIDsMax        = 10_000
)

// jetstreamPosition reads the cursor. locate turns it into the id of an event.
func (q params) jetstreamPosition() (p position, err error) {
	cursor, err := q.single("cursor")
	if err != nil || cursor == "" {
		return p, err
	}
	if p.cursor, err = strconv.ParseUint(cursor, 10, 63); err != nil {
		return p, wire.Invalid("cursor %s: want a whole number from 0 to %d, unix microseconds or the "+
			"number of an event", wire.Echo(cursor), math.MaxInt64)
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
