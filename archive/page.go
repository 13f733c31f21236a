package archive

import (
	"context"
	"sort"

	"cistern/filter"
	"cistern/store"
)

// page is one reading of segments.
type page struct {
	*Archive
	filter *filter.Events // what is wanted by kind and collection; nil: everything
	next   uint64         // next id to pass
	left   int            // events still to pass
	fn     func(*store.Event) error

	decoded, looked int  // frames
	stopped         bool // the page ends before an event that must not be passed yet
}

func (p *page) full() bool {
	return p.stopped || p.left <= 0 || p.decoded >= pageFrames || p.looked >= pageLooked
}

// read passes events of segments, the first of which has next, until the page is full or the
// segments end.
func (p *page) read(ctx context.Context, all []store.Segment) error {
	for i := 0; i < len(all) && !p.full(); i++ {
		seg := &all[i]
		x, err := p.indexOf(ctx, seg)
		if err != nil {
			return err
		}
		p.looked++
		var lists []bool
		if p.filter != nil {
			lists = x.wanted(p.filter)
		}
		for j := x.find(p.next); j < len(x.Frames) && !p.full(); j++ {
			p.looked++
			if lists != nil && !x.Frames[j].has(lists) {
				p.next = x.next(j)
				continue
			}
			if err := p.frame(ctx, seg, x, j); err != nil {
				return err
			}
		}
		if !p.full() || p.left > 0 && p.next == x.Next {
			p.next = seg.Next
		}
	}
	return nil
}

// frame passes events of a frame. They are fetched before the store is asked what is shown.
func (p *page) frame(ctx context.Context, seg *store.Segment, x *indexV1, j int) error {
	events, err := p.events(ctx, seg, x, j)
	if err != nil {
		return err
	}
	p.decoded++
	from := sort.Search(len(events), func(i int) bool { return events[i].ID >= p.next })
	err = p.store.Showing(func(shown store.ShownFunc) error {
		g := gates{shown: shown, known: map[gateKey]store.Shown{}}
		for i := from; i < len(events) && p.left > 0; i++ {
			if err := p.event(&events[i], &g); err != nil || p.stopped {
				return err
			}
		}
		return nil
	})
	if err == nil && !p.stopped && p.left > 0 {
		p.next = x.next(j)
	}
	return err
}

// event passes one event, unless it is not wanted or not shown.
func (p *page) event(k *store.Kept, g *gates) error {
	if p.filter != nil && !p.wants(k) {
		p.next = k.ID + 1
		return nil
	}
	much, err := g.of(k)
	switch {
	case err != nil:
		return err
	case much == store.ShownLater:
		p.next, p.stopped = k.ID, true
		return nil
	}
	p.next = k.ID + 1
	if much == store.ShownNone || much == store.ShownDeletes && k.Action != store.Delete {
		return nil
	}
	p.left--
	ev := k.Event // a copy: fn must not change the kept event
	return p.fn(&ev)
}

func (p *page) wants(k *store.Kept) bool {
	return p.filter.Kind(uint8(k.Kind)) &&
		(k.Kind != store.KindRecord || p.filter.Collection(k.Collection))
}

// gates remembers what is shown, for the events of one frame.
type gates struct {
	shown store.ShownFunc
	known map[gateKey]store.Shown
}

type gateKey struct {
	did     string
	ordinal store.Ordinal
	commit  bool
}

func (g *gates) of(k *store.Kept) (store.Shown, error) {
	if k.Kind != store.KindRecord {
		return store.ShownAll, nil
	}
	key := gateKey{k.DID, k.Ordinal, k.Commit}
	if much, ok := g.known[key]; ok {
		return much, nil
	}
	much, err := g.shown(k.DID, k.Ordinal, k.Commit)
	if err == nil {
		g.known[key] = much
	}
	return much, err
}
