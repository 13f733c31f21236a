package filter

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// EventsConfig is a filter of events as a consumer writes it. An empty set means all, but without
// Kinds no repo events.
type EventsConfig struct {
	Collections []string // NSIDs and prefixes (app.bsky.*); for record events
	DIDs        []string
	Kinds       []string // record, account, identity, repo
	Actions     []string // create, update, delete; for record events
	Live        string   // "true": from the firehose; "false": from backfills; for record events
}

// EventKinds and EventActions are the words of an EventsConfig. The number of a word in package
// store is its position, counted from 1.
var (
	EventKinds   = []string{"record", "account", "identity", "repo"}
	EventActions = []string{"create", "update", "delete"}
)

// optional is the number of the kind that a filter wants only if it names the kind: consumers older
// than the kind do not know its events.
const optional = 4

// everyKind is the set of all kinds.
const everyKind = 1<<1 | 1<<2 | 1<<3 | 1<<optional

// Events decides which events a consumer wants. It never changes. The zero value wants all but repo
// events.
// Collections, actions and live restrict only record events: a consumer of one collection still
// learns that an account is gone, unless its only kind is record.
type Events struct {
	collections patterns
	dids        map[string]struct{}
	kinds       uint8 // a bit for each number; 0: all but optional
	actions     uint8
	live        string
}

// CompileEvents returns the filter of a config. The error names the first problemsMax invalid
// values.
func CompileEvents(c EventsConfig) (*Events, error) {
	f := &Events{live: c.Live, collections: make(patterns, min(len(c.Collections), itemsMax)),
		dids: make(map[string]struct{}, min(len(c.DIDs), itemsMax))}
	var bad problems
	for _, text := range c.Collections {
		key, err := parse("collection", text)
		if bad.add(err) {
			break
		}
		f.collections[key] = struct{}{}
	}
	for _, did := range c.DIDs {
		_, err := syntax.ParseDID(did)
		if err != nil && bad.add(fmt.Errorf("did %.400q is not a DID", did)) {
			break
		}
		f.dids[did] = struct{}{}
	}
	f.kinds = bits("kind", c.Kinds, EventKinds, &bad)
	f.actions = bits("action", c.Actions, EventActions, &bad)
	if c.Live != "" && c.Live != "true" && c.Live != "false" {
		bad.add(fmt.Errorf("live %.400q is neither true nor false", c.Live))
	}
	if len(f.collections) > itemsMax || len(f.dids) > itemsMax {
		bad.add(fmt.Errorf("%d collections and %d dids: at most %d of each",
			len(f.collections), len(f.dids), itemsMax))
	}
	if err := errors.Join(bad...); err != nil {
		return nil, err
	}
	return f, nil
}

// problemsMax bounds the invalid values that an error about a filter of events names: any consumer
// can send 100,000 of them in one message.
const problemsMax = 20

// problems are errors about invalid values.
type problems []error

// add adds an error unless it is nil, and reports whether there are enough of them.
func (p *problems) add(err error) (full bool) {
	if err != nil && len(*p) < problemsMax {
		*p = append(*p, err)
	}
	return len(*p) == problemsMax
}

// NoEvents returns the filter that wants no event.
func NoEvents() *Events { return &Events{kinds: 1} } // no kind has number 0

// bits returns the set of numbers of some words.
func bits(noun string, given, words []string, bad *problems) (set uint8) {
	for _, word := range given {
		i := slices.Index(words, word)
		if i < 0 {
			if bad.add(fmt.Errorf("%s %.400q is none of %s", noun, word, strings.Join(words, ", "))) {
				break
			}
			continue
		}
		set |= 1 << (i + 1)
	}
	return set
}

// All reports whether every event is wanted, except for repo events, which Kind decides.
func (f *Events) All() bool {
	return len(f.collections) == 0 && len(f.dids) == 0 && (f.kinds == 0 || f.kinds == everyKind) &&
		f.actions == 0 && f.live == ""
}

// Size returns about how many bytes of memory the filter takes.
func (f *Events) Size() (n int) {
	const entry = 48 // of a map, with the string's header and what the map keeps free
	for key := range f.collections {
		n += entry + len(key)
	}
	for did := range f.dids {
		n += entry + len(did)
	}
	return n
}

// Sparse reports whether f leaves out record events by their kind or collection.
func (f *Events) Sparse() bool { return len(f.collections) > 0 || !f.Kind(1) }

// LiveOnly reports whether f leaves out record events of backfills.
func (f *Events) LiveOnly() bool { return f.live == "true" }

// Kind reports whether events of a kind are wanted, by its number.
func (f *Events) Kind(kind uint8) bool {
	if f.kinds == 0 {
		return kind != optional
	}
	return f.kinds&(1<<kind) != 0
}

// DID reports whether events of an account are wanted.
func (f *Events) DID(did string) bool {
	_, ok := f.dids[did]
	return ok || len(f.dids) == 0
}

// Collection reports whether record events of a collection are wanted.
func (f *Events) Collection(collection []byte) bool {
	return len(f.collections) == 0 || f.collections.match(collection)
}

// Record reports whether record events of an action, by its number, from the firehose or from a
// backfill, are wanted.
func (f *Events) Record(action uint8, live bool) bool {
	return (f.actions == 0 || f.actions&(1<<action) != 0) &&
		(f.live == "" || (f.live == "true") == live)
}

// DIDs returns the accounts whose events are wanted, in ascending order; nil means all.
func (f *Events) DIDs() []string {
	if len(f.dids) == 0 {
		return nil
	}
	return slices.Sorted(maps.Keys(f.dids))
}

// Ranges returns the names of the wanted collections, each followed by a zero byte, as disjoint
// ranges in ascending order; nil means all. The ranges of a prefix may hold names that Collection
// refuses.
func (f *Events) Ranges() []Range { return ranges(0, f.collections) }
