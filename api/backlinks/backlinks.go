package backlinks

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"cistern/api/wire"
	"cistern/store"
	"cistern/store/linkindex"
)

// Backlinks answers queries for links.
type Backlinks struct {
	index  *linkindex.Index
	store  *store.Store
	bounds bounds
}

// bounds are limits that tests change.
type bounds struct {
	records int // scanRecordsMax
	rounds  int // windowRounds
	bytes   int // scanBytesMax
	memory  int // windowBytesMax
}

// New returns the answers of an index over a store. Without an index (nil) every query is refused,
// and the refusal names the option.
func New(index *linkindex.Index, s *store.Store) *Backlinks {
	return &Backlinks{index, s, bounds{scanRecordsMax, windowRounds, scanBytesMax, windowBytesMax}}
}

// Method answers a query with a JSON body, or a refusal.
type Method func(q wire.Query) ([]byte, error)

// Methods returns the methods of XRPC, by name.
func (b *Backlinks) Methods() map[string]Method {
	const links = "blue.microcosm.links."
	return b.answers(map[string]answer{
		links + "getBacklinks":        b.getBacklinks,
		links + "getBacklinksCount":   b.getBacklinksCount,
		links + "getBacklinkDids":     b.getBacklinkDIDs,
		links + "getManyToMany":       b.getManyToMany,
		links + "getManyToManyCounts": b.getManyToManyCounts,
	})
}

// Older returns the older routes, by path.
func (b *Backlinks) Older() map[string]Method {
	return b.answers(map[string]answer{
		"/links":                     b.links,
		"/links/count":               b.count,
		"/links/distinct-dids":       b.distinctDIDs,
		"/links/count/distinct-dids": b.countDistinctDIDs,
		"/links/all":                 b.all,
		"/links/all/count":           b.allCount,
	})
}

// Repeated are the parameters that may be given several times.
func Repeated() []string { return []string{"did", "linkDid", "otherSubject"} }

// answer computes an answer, which has a form in JSON.
type answer func(q wire.Query) (any, error)

// answers makes methods of answers: they state how far the index has come.
func (b *Backlinks) answers(all map[string]answer) map[string]Method {
	methods := make(map[string]Method, len(all))
	for name, answer := range all {
		methods[name] = func(q wire.Query) ([]byte, error) {
			if b.index == nil {
				return nil, Disabled()
			}
			b.watermark(q)
			body, err := answer(q)
			if err != nil {
				return nil, err
			}
			return json.Marshal(body)
		}
	}
	return methods
}

// Enabled reports whether there is an index.
func (b *Backlinks) Enabled() bool { return b.index != nil }

// Disabled returns the refusal of every query without an index.
func Disabled() error {
	return wire.Refuse("BacklinksDisabled",
		"this server keeps no index of links: its operator can have "+
			"it kept with the option --backlinks")
}

// watermark sets the headers that state how far the index has come (invariant 3).
func (b *Backlinks) watermark(q wire.Query) {
	if q.Header == nil {
		return
	}
	st := b.index.State()
	q.Header.Set("Cistern-Epoch", st.Epoch)
	q.Header.Set("Cistern-Through", strconv.FormatUint(st.Through, 10))
	if st.Building {
		q.Header.Set("Cistern-Building", fmt.Sprintf("%d/%d", st.Done, st.Total))
	}
}

// indexError returns an error of the index. That its rows are damaged says nothing about the store
// (invariant 5).
func indexError(err error) error {
	if errors.Is(err, store.ErrCorrupt) {
		return fmt.Errorf("read the index of links: %v; stop the daemon, delete the directory of the "+
			"index, and it is built anew", err)
	}
	return err
}
