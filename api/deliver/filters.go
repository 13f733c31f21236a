package deliver

import (
	"net/netip"

	"cistern/api/wire"
	"cistern/filter"
)

// Filters of streams are long-lived, and one may list 10,000 accounts: together they have a budget,
// of which no client gets all.

// holdFilter reserves the bytes of a filter until releaseFilter. Without room for it the error is a
// refusal.
func (d *Delivery) holdFilter(client netip.Prefix, f *filter.Events) (held int64, err error) {
	n := int64(f.Size())
	if n <= filterBytesFree {
		return 0, nil
	}
	if !d.filters.TryAcquire(client, n) {
		return 0, wire.Refuse("RateLimitExceeded", "there is no room for a filter of %d bytes: "+
			"the filters of your streams may take %d, and those of all %d",
			n, d.filters.Most(), filterBytesMax)
	}
	return n, nil
}

// releaseFilter ends the reservation of a filter.
func (d *Delivery) releaseFilter(client netip.Prefix, held int64) {
	if held > 0 {
		d.filters.Release(client, held)
	}
}

// setFilter makes a change that the consumer asked for.
func (u *subscriber) setFilter(c *change) {
	u.releaseFilter(u.client, u.filterHeld)
	u.filter, u.most, u.filterHeld = c.filter, c.most, c.held
}

// ask hands a change over to the goroutine that sends. It supersedes one that was not made yet.
func (u *subscriber) ask(c *change) (err error) {
	if c.held, err = u.holdFilter(u.client, c.filter); err != nil {
		return invalidMessage("%w", err)
	}
	u.forget()
	u.changes <- c
	return nil
}

// forget drops the change that was not made yet.
func (u *subscriber) forget() {
	select {
	case old := <-u.changes:
		u.releaseFilter(u.client, old.held)
	default:
	}
}
