package store

import "sync"

const (
	// importSlots is how many groups of small repositories may be filled at a time. The first is
	// preferred, so that groups are few and full; the second is used while the first is being
	// written.
	importSlots = 2
	// largeSlot is the place of a group that holds one large repository.
	largeSlot = importSlots
	// largeBlocks is the number of blocks from which a repository gets a group of its own: some 20
	// MB, and a walk of about 200 ms, for which the other repositories of a group would wait.
	largeBlocks = 64 << 10
)

// slots are the places of import groups that are being filled. Each has one user at a time.
type slots struct {
	mu    sync.Mutex
	freed sync.Cond
	all   [importSlots + 1]slot
}

// slot holds a group. The goroutine that took the slot owns the group.
type slot struct {
	busy bool   // slots.mu guards
	g    *group // nil between groups
}

func (s *Store) openSlots() error {
	s.slots.freed.L = &s.slots.mu
	return nil
}

// take waits for any slot that a repository of this many blocks may use. A large repository waits
// for other large ones only, and small ones never wait for it.
func (q *slots) take(blocks int) *slot {
	some := q.all[:importSlots]
	if blocks >= largeBlocks {
		some = q.all[largeSlot:]
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		for i := range some {
			if sl := &some[i]; !sl.busy {
				sl.busy = true
				return sl
			}
		}
		q.freed.Wait()
	}
}

// try takes a slot if it is free, and reports whether it did.
func (q *slots) try(sl *slot) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	free := !sl.busy
	sl.busy = true
	return free
}

// wait takes a slot, after waiting until it is free.
func (q *slots) wait(sl *slot) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for sl.busy {
		q.freed.Wait()
	}
	sl.busy = true
}

// release frees a slot.
func (q *slots) release(sl *slot) {
	q.mu.Lock()
	defer q.mu.Unlock()
	sl.busy = false
	q.freed.Broadcast()
}

// large reports whether the slot is for large repositories, each of which is a group of its own.
func (q *slots) large(sl *slot) bool { return sl == &q.all[largeSlot] }
