package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// delivered is what a consumer learns from one event, in whatever format it came.
type delivered struct {
	id uint64
	// record, account, identity, or either of these two; repo, snapshot, snapshot_end, updated, gap,
	// outdated, error
	what string

	did, collection, rkey, action, cid string

	told   bool // the format says whether the event is live
	live   bool
	active bool
	at     int64  // its time, in formats that have it
	to     uint64 // the last id of a gap; the first event behind the snapshot of a subscription
	token  string
	text   string // of an error; the path in a gap
}

func (ev *delivered) path() string { return ev.collection + "/" + ev.rkey }

// identity returns what all formats say of an event.
func (ev *delivered) identity() string {
	return fmt.Sprintf("%s of %s: %s %s %s, active %t",
		ev.what, ev.did, ev.action, ev.path(), ev.cid, ev.active)
}

// cisternEvent is an event of /stream or of a durable subscription.
type cisternEvent struct {
	ID       uint64
	Snapshot any // true; of a gap the path of a snapshot
	Token    string
	Type     string
	Error    string
	Message  string
	To, Next uint64
	Record   *struct {
		Live                  bool
		DID, Action           string
		Collection, Rkey, CID string
		CBOR                  []byte
		Unrepresentable       string
	}
	Account *struct {
		DID    string
		Active bool
	}
	Identity *struct{ DID string }
	Repo     *struct{ DID, State, Reason string }
}

// readCistern reads an event of Cistern's own format.
func readCistern(text []byte) (ev delivered, err error) {
	var m cisternEvent
	if err := json.Unmarshal(text, &m); err != nil {
		return ev, fmt.Errorf("message %.200s: %w", text, err)
	}
	ev = delivered{id: m.ID, what: m.Type, token: m.Token, to: m.To, told: true}
	switch {
	case m.Type == "error" && m.Error == "OutdatedCursor":
		ev.what = "outdated"
	case m.Type == "gap":
		ev.text, _ = m.Snapshot.(string)
	case m.Type == "snapshot_end":
		ev.to = m.Next
	case m.Type == "error":
		ev.text = m.Error + ": " + m.Message
	case m.Record != nil:
		r := m.Record
		ev.did, ev.collection, ev.rkey = r.DID, r.Collection, r.Rkey
		ev.action, ev.cid, ev.live = r.Action, r.CID, r.Live
		if m.Snapshot == true {
			ev.what = "snapshot"
		}
	case m.Account != nil:
		ev.did, ev.active = m.Account.DID, m.Account.Active
	case m.Identity != nil:
		ev.did = m.Identity.DID
	case m.Repo != nil:
		ev.did, ev.action = m.Repo.DID, m.Repo.State+" "+m.Repo.Reason
	}
	return ev, nil
}

// wish is a filter as a consumer states it, and what it means, apart from the code under test.
type wish struct {
	Collections []string `json:"collections,omitempty"`
	DIDs        []string `json:"dids,omitempty"`
	Kinds       []string `json:"kinds,omitempty"`
	Actions     []string `json:"actions,omitempty"`
	Live        *bool    `json:"live,omitempty"`
}

func (w *wish) query() string {
	q := url.Values{}
	for name, list := range map[string][]string{"collections": w.Collections, "dids": w.DIDs,
		"kinds": w.Kinds, "actions": w.Actions} {
		if len(list) > 0 {
			q.Set(name, strings.Join(list, ","))
		}
	}
	if w.Live != nil {
		q.Set("live", fmt.Sprint(*w.Live))
	}
	return "&" + q.Encode()
}

func among(list []string, word string) bool { return len(list) == 0 || slices.Contains(list, word) }

// holds reports whether a collection is wanted.
func (w *wish) holds(collection string) bool {
	return len(w.Collections) == 0 || slices.ContainsFunc(w.Collections, func(p string) bool {
		prefix, wild := strings.CutSuffix(p, "*")
		return collection == p || wild && strings.HasPrefix(collection, prefix)
	})
}

func (w *wish) wants(ev *delivered) bool {
	if ev.what == "snapshot" {
		return among(w.DIDs, ev.did) && w.holds(ev.collection)
	}
	if ev.what == "repo" { // only on request
		return among(w.DIDs, ev.did) && slices.Contains(w.Kinds, "repo")
	}
	live := w.Live == nil || !ev.told || *w.Live == ev.live
	return among(w.DIDs, ev.did) && among(w.Kinds, ev.what) && (ev.what != "record" ||
		w.holds(ev.collection) && among(w.Actions, ev.action) && live)
}

// folds reports whether a consumer with this filter can hold what the store does: it needs all
// changes, and the ends of accounts.
func (w *wish) folds() bool {
	return w.Live == nil && len(w.Actions) == 0 &&
		among(w.Kinds, "record") && among(w.Kinds, "account")
}

// take applies an event, whatever is held: a consumer may have begun in the middle of the log.
func (f fold) take(ev *delivered) {
	switch {
	case (ev.what == "account" || ev.what == "either") && !ev.active:
		delete(f, ev.did)
	case ev.what != "record" && ev.what != "snapshot":
	case ev.action == "delete":
		delete(f[ev.did], ev.path())
	default:
		if f[ev.did] == nil {
			f[ev.did] = map[string]string{}
		}
		f[ev.did][ev.path()] = ev.cid
	}
}

// keep drops the records that a filter does not want.
func (f fold) keep(w *wish) {
	for did, held := range f {
		maps.DeleteFunc(held, func(path, _ string) bool {
			collection, _, _ := strings.Cut(path, "/")
			return !among(w.DIDs, did) || !w.holds(collection)
		})
	}
}

func (f fold) clone() fold {
	out := make(fold, len(f))
	for did, held := range f {
		out[did] = maps.Clone(held)
	}
	return out
}

// passage is a part of the log that a consumer has passed. It must have got every event there that
// all of the filters want.
type passage struct {
	by       string
	from, to uint64 // to is exclusive
	filters  []wish
	got      map[uint64]bool
}

// ledger has what all consumers got, to be compared.
type ledger struct {
	mu       sync.Mutex
	events   map[uint64]delivered // mu guards: of formats that tell everything
	said     map[uint64]string    // mu guards: the identity of each event
	passages []passage            // mu guards
	met      map[string]int       // mu guards
	told     map[string][]string  // mu guards: what became of each consumer, for a failure
}

func newLedger() *ledger {
	return &ledger{events: map[uint64]delivered{}, said: map[uint64]string{},
		met: map[string]int{}, told: map[string][]string{}}
}

// note records an event, and fails if its id was another event before.
func (l *ledger) note(ev *delivered) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	said := ev.identity()
	if ev.what == "either" {
		return nil
	}
	if before, ok := l.said[ev.id]; ok && before != said {
		return fmt.Errorf("event %d is %q, and was %q", ev.id, said, before)
	}
	l.said[ev.id] = said
	if ev.told {
		l.events[ev.id] = *ev
	}
	return nil
}

func (l *ledger) event(id uint64) delivered {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.events[id]
}

// pass records a passage. The consumer does not change it later.
func (l *ledger) pass(p passage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.from < p.to {
		l.passages = append(l.passages, p)
	}
}

// count counts something that the run has met.
func (l *ledger) count(what string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.met[what] += n
}

// hasMet reports whether all of this was counted.
func (l *ledger) hasMet(all ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, what := range all {
		if l.met[what] == 0 {
			return false
		}
	}
	return true
}

// tell adds to the story of a consumer.
func (l *ledger) tell(by, f string, a ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told[by] = append(l.told[by], fmt.Sprintf(f, a...))
}

// story returns the events of an account, and which of them a consumer got.
func (l *ledger) story(by, did string) (story []string) {
	for _, id := range slices.Sorted(maps.Keys(l.events)) {
		if ev := l.events[id]; ev.did == did {
			story = append(story, fmt.Sprintf("%d: %s", id, ev.identity()))
			for _, p := range l.passages {
				if p.by == by && p.from <= id && id < p.to {
					story[len(story)-1] += fmt.Sprintf(" [%d,%d: %t]", p.from, p.to, p.got[id])
				}
			}
		}
	}
	return story
}

// missing returns what passages lack: events of accounts that were always shown, and all events
// that are not about records. Records of other accounts vanish from the log and return to it.
func (l *ledger) missing(shaky map[string]bool) (lacks []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ids := slices.Sorted(maps.Keys(l.events))
	for _, p := range l.passages {
		first, _ := slices.BinarySearch(ids, p.from)
		for _, id := range ids[first:] {
			ev := l.events[id]
			if id >= p.to {
				break
			}
			if p.got[id] || ev.what == "record" && shaky[ev.did] {
				continue
			}
			if !slices.ContainsFunc(p.filters, func(w wish) bool { return !w.wants(&ev) }) {
				lacks = append(lacks, fmt.Sprintf(
					"%s passed %d to %d and did not get %d, %s (live %t)",
					p.by, p.from, p.to, id, ev.identity(), ev.live))
			}
		}
	}
	return lacks
}
