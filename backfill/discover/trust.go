package discover

// trust is what requests for lists have shown about a host. Lists of untrusted hosts share a
// bounded part of the places, so that hosts that hang do not delay hosts that answer.
type trust uint8

const (
	trusted trust = iota // it answered as expected
	untried              // it has not been asked yet
	doubted              // it failed last, or takes long to answer
	trusts
)

// places returns how many of n places the lists of such hosts may take at a time.
func (t trust) places(n int) int {
	switch t {
	case untried:
		return n / untriedShare
	case doubted:
		return n / doubtedShare
	}
	return n
}

// trustIn returns what the row of a host shows about it, from before a restart, too.
func (r *Runner) trustIn(id uint32) trust {
	switch h, _ := r.store.HostByID(id); {
	case h.Failing != 0:
		return doubted
	case h.LastSeen == 0:
		return untried
	}
	return trusted
}
