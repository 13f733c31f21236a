package store

import (
	"context"
	"sync"
)

// door lets callers in side by side until it is shut. Callers that come to a shut door wait before
// it, and shut waits until the callers inside have left. The zero door is open.
type door struct {
	// mu guards:
	mu     sync.Mutex
	inside int
	opened chan struct{} // closed when the door opens; nil while it is open
	left   chan struct{} // closed when the last caller leaves; nil unless shut waits for it
}

// enter waits until the door is open, or until stop is closed. leave must follow.
func (d *door) enter(stop <-chan struct{}) {
	for {
		opened := d.tryEnter()
		if opened == nil {
			return
		}
		select {
		case <-opened:
		case <-stop:
			d.mu.Lock()
			d.inside++
			d.mu.Unlock()
			return
		}
	}
}

// tryEnter enters an open door and returns nil, or returns a channel that is closed when the door
// opens. leave must follow if it is nil.
func (d *door) tryEnter() (opened <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.opened == nil {
		d.inside++
		return nil
	}
	return d.opened
}

func (d *door) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.inside--; d.inside == 0 && d.left != nil {
		close(d.left)
		d.left = nil
	}
}

// shut keeps new callers out and waits until all have left. If ctx ends before, the door is open
// again. The door must be open, and one goroutine at a time shuts it.
func (d *door) shut(ctx context.Context) error {
	d.mu.Lock()
	d.opened = make(chan struct{})
	var left chan struct{}
	if d.inside > 0 {
		left = make(chan struct{})
		d.left = left
	}
	d.mu.Unlock()
	if left == nil {
		return nil
	}
	select {
	case <-left:
		return nil
	case <-ctx.Done():
		d.open()
		return context.Cause(ctx)
	}
}

// open lets the waiting callers in.
func (d *door) open() {
	d.mu.Lock()
	defer d.mu.Unlock()
	close(d.opened)
	d.opened, d.left = nil, nil
}

// ajar returns nil if the door is open, or a channel that is closed when it opens.
func (d *door) ajar() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.opened
}
