package pace

import "time"

// ring is a first-in-first-out queue of hosts.
type ring struct {
	hosts []*Host
	first int
}

func (q *ring) len() int { return len(q.hosts) - q.first }

func (q *ring) push(h *Host) { q.hosts = append(q.hosts, h) }

// pop removes and returns the first host. The queue is not empty.
func (q *ring) pop() *Host {
	h := q.hosts[q.first]
	q.hosts[q.first] = nil
	q.first++
	if 2*q.first >= len(q.hosts) {
		n := copy(q.hosts, q.hosts[q.first:])
		clear(q.hosts[n:])
		q.hosts, q.first = q.hosts[:n], 0
	}
	return h
}

// timedHeap is a heap of hosts by the time that they wait for. It implements heap.Interface.
type timedHeap []*Host

// Len implements heap.Interface.
func (q timedHeap) Len() int { return len(q) }

// Less implements heap.Interface.
func (q timedHeap) Less(i, j int) bool { return q[i].at.Before(q[j].at) }

// Swap implements heap.Interface. It keeps Host.place up to date.
func (q timedHeap) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i+1, j+1
}

// Push implements heap.Interface.
func (q *timedHeap) Push(x any) {
	h := x.(*Host)
	*q = append(*q, h)
	h.place = len(*q)
}

// Pop implements heap.Interface.
func (q *timedHeap) Pop() any {
	old := *q
	h := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	h.place, h.at = 0, time.Time{}
	return h
}
