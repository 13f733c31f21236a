package chart

import (
	"math"
	"time"
)

// ring has the newest points of all series at one step. Slot n has the points of the time n×step
// after the epoch, until the next slot.
type ring struct {
	step   time.Duration
	points [][]float32 // by series, and by slot modulo their number
	newest int64       // slot
	filled int         // slots up to the newest that have been reached
}

func newRing(series, points int, step time.Duration) *ring {
	r := &ring{step: step, points: make([][]float32, series)}
	for i := range r.points {
		r.points[i] = make([]float32, points)
	}
	return r
}

func (r *ring) slot(t time.Time) int64 { return t.UnixNano() / int64(r.step) }

// advance moves to the slot of t. The slots in between are unknown.
func (r *ring) advance(t time.Time) {
	slot, size := r.slot(t), len(r.points[0])
	if r.filled == 0 || slot < r.newest-1 { // the first, or the clock went back (invariant 4)
		r.newest, r.filled = slot-1, 0
	}
	for r.newest = max(r.newest, slot-int64(size)); r.newest < slot; r.filled = min(size, r.filled+1) {
		r.newest++
		for i := range r.points {
			*r.at(i, r.newest) = float32(math.NaN())
		}
	}
}

// at returns the point of a series in a slot.
func (r *ring) at(series int, slot int64) *float32 {
	points := r.points[series]
	return &points[slot%int64(len(points))]
}

// View is a range of points.
type View struct {
	Step   time.Duration
	Span   time.Duration // that the range keeps
	Start  time.Time     // of the first point of each series
	Values [][]float32   // by series, oldest first; NaN if unknown
}

// since returns a copy of the points from the slot of t on.
func (r *ring) since(t time.Time) View {
	first := max(r.newest-int64(r.filled)+1, r.slot(t))
	v := View{Step: r.step, Span: time.Duration(len(r.points[0])) * r.step,
		Start: time.Unix(0, first*int64(r.step)), Values: make([][]float32, len(r.points))}
	for i := range v.Values {
		v.Values[i] = make([]float32, 0, max(0, r.newest-first+1))
		for slot := first; slot <= r.newest; slot++ {
			v.Values[i] = append(v.Values[i], *r.at(i, slot))
		}
	}
	return v
}
