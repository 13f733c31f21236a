package store

import (
	"math"
	"slices"
	"sync"
	"time"
)

// backlogLogEvery is how often a subscription that keeps events in the log is logged.
const backlogLogEvery = 24 * time.Hour

// backlogs are the events that durable subscriptions keep in the log.
type backlogs struct {
	// tail is held while a page is pruned, from reading the positions until the tail has moved, and
	// shared while a subscription gets a position that is not above its former one. It is taken
	// before all other mutexes.
	tail sync.RWMutex

	logged map[string]backlogLog // owned by Prune; by name

	// mu guards:
	mu      sync.Mutex
	kept    map[string]time.Duration // the age of the oldest event kept, by name
	keepers map[*LogKeeper]uint64    // the first event that each keeps
}

// backlogLog is when it was last logged that a subscription keeps events, and that it loses some.
type backlogLog struct{ kept, lost time.Time }

// KeepTail keeps events from being pruned until release is called. Hold it from looking at the tail
// until a position is written that is new or lower than before: otherwise the events behind it may
// be pruned in between. Do not hold it while waiting for anything but the disk.
func (s *Store) KeepTail() (release func()) {
	s.backlogs.tail.RLock()
	return s.backlogs.tail.RUnlock
}

// Backlog returns the age of the oldest event that stays in the log only because a durable
// subscription has not acknowledged it; ok is false without such an event. Prune updates it.
func (s *Store) Backlog(name string) (age time.Duration, ok bool) {
	q := &s.backlogs
	q.mu.Lock()
	defer q.mu.Unlock()
	age, ok = q.kept[name]
	return age, ok
}

// awaited lowers to, the event up to which the log is to be pruned, to what all durable
// subscriptions allow. Each keeps the events that it has not acknowledged, for
// Options.SubscriptionRetention and within twice Options.RetentionBytes.
//
// The positions are those on disk, which are never above what is acknowledged. If a crash loses a
// position that is read here, it loses what is pruned because of it too: that is written later.
func (s *Store) awaited(to uint64) (uint64, error) {
	tail, most := s.Tail(), to
	if s.opts.SubscriptionRetention > 0 {
		most = max(s.ages.before(s.opts.SubscriptionRetention),
			s.ages.beyond(2*min(s.opts.RetentionBytes, math.MaxInt64/2)))
	}
	lost := min(to, most) // events before it that are not acknowledged
	if s.opts.Archive {
		lost = 0 // the subscription reads them in the archive
	}
	kept, logged, limit := map[string]time.Duration{}, map[string]backlogLog{}, to
	lower, upper := []byte{spacePosition}, spaceEnd(spacePosition)
	err := scan(s.db, lower, upper, func(key, value []byte) (bool, error) {
		name, err := parseSubscriptionKey(spacePosition, key)
		if err != nil {
			return false, err
		}
		p, err := s.parsePosition(value)
		if err != nil {
			return false, err
		}
		first := p.first(max(tail, most))
		if first < to {
			kept[name] = s.ages.ageOf(first)
			limit = min(limit, first)
		}
		logged[name] = s.logBacklog(name, p.first(tail), lost, kept)
		return true, nil
	})
	q := &s.backlogs
	if first, ok := q.keepersFrom(max(tail, most)); ok {
		limit = min(first, limit)
	}
	q.logged = logged
	q.mu.Lock()
	defer q.mu.Unlock()
	q.kept = kept
	return limit, err
}

// first returns the first id from an id on that is not acknowledged.
func (p SubscriptionPosition) first(from uint64) uint64 {
	i, _ := slices.BinarySearch(p.Outstanding, from)
	if i < len(p.Outstanding) {
		return p.Outstanding[i]
	}
	return max(p.Next, from)
}

// logBacklog logs, once a day, that a subscription loses the events from first to to, and that it
// keeps events in the log.
func (s *Store) logBacklog(
	name string, first, to uint64, kept map[string]time.Duration,
) backlogLog {
	last, now := s.backlogs.logged[name], s.now()
	if first < to && now.Sub(last.lost) >= backlogLogEvery {
		last.lost = now
		s.opts.Logger.Error("events are pruned that a durable subscription has not acknowledged: its "+
			"consumer gets a gap, and has to catch up with a snapshot", "subscription", name,
			"from", first, "to", to-1)
	}
	if age, ok := kept[name]; ok && now.Sub(last.kept) >= backlogLogEvery {
		last.kept = now
		s.opts.Logger.Warn("a durable subscription keeps events in the log beyond --retention: let "+
			"its consumer acknowledge them, or remove the subscription", "subscription", name,
			"id", first, "age", age, "until", s.opts.SubscriptionRetention)
	}
	return last
}
