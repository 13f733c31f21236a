package store

import (
	"encoding/binary"
	"math"
	"sync"
	"time"
)

// noDue means that there is no retry.
const noDue int64 = math.MaxInt64

// retries remembers where the retry index begins: deleted rows pile up in front of it, and a scan
// must not step over them.
type retries struct {
	mu   sync.Mutex
	low  int64  // mu guards: no row is due earlier
	adds uint64 // mu guards: batches applied that added rows
}

// added records that rows were added, none of them due before due.
func (q *retries) added(due int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.adds++
	q.low = min(q.low, due)
}

func (q *retries) front() (low int64, adds uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.low, q.adds
}

// remember records the first row that a scan found, unless rows were added that it may have missed.
func (q *retries) remember(low int64, adds uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.adds == adds {
		q.low = low
	}
}

// RetryAheadMax is how far ahead a retry may be due: twice the longest delay that any code sets,
// some weeks for accounts that were deleted long ago. A later time was set by a clock that was
// ahead, and counts as due now.
const RetryAheadMax = 8 * 7 * 24 * time.Hour

// IsDue reports whether the due time of a row (Repo.Due, 0 for never) has come.
func IsDue(due int64, now time.Time) bool {
	return due != 0 && (due <= now.Unix() || due > now.Add(RetryAheadMax).Unix())
}

// DueRetries returns up to limit DIDs whose Due has come, in the order of Due, and the time of the
// first that is due later (zero if none waits).
func (s *Store) DueRetries(now time.Time, limit int) (dids []string, next time.Time, err error) {
	low, adds := s.retries.front()
	first := noDue
	lower := binary.BigEndian.AppendUint64([]byte{spaceRetry}, uint64(low))
	err = scan(s.db, lower, spaceEnd(spaceRetry), func(key, _ []byte) (bool, error) {
		due, did, err := parseRetryKey(key)
		if err != nil {
			return false, err
		}
		first = min(first, due)
		if due > now.Unix() || len(dids) == limit {
			next = time.Unix(due, 0)
			return false, nil
		}
		dids = append(dids, did)
		return true, nil
	})
	if err != nil {
		return nil, next, err
	}
	s.retries.remember(first, adds)
	ahead := binary.BigEndian.AppendUint64([]byte{spaceRetry}, uint64(now.Add(RetryAheadMax).Unix()+1))
	err = scan(s.db, ahead, spaceEnd(spaceRetry), func(key, _ []byte) (bool, error) {
		if len(dids) == limit {
			return false, nil
		}
		_, did, err := parseRetryKey(key)
		dids = append(dids, did)
		return true, err
	})
	return dids, next, err
}
