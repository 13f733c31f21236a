package discover

// trust is what the requests of lists have shown of a host. Lists of hosts that are not trusted may take only some of the
// places, so that hosts that hang do not delay those that answer, however many they are.
type trust uint8

const (
	trusted trust = iota // it answered in order
	untried              // it has not been asked yet
	doubted              // it failed last, or takes long to answer
	trusts
)

// places is how many of n places the lists of such hosts may take at a time.
func (t trust) places(n int) int {
	switch t {
	case untried:
		return n / untriedShare
	case doubted:
		return n / doubtedShare
	}
	return n
}

// trustIn is what is known of a host from before: it is remembered over restarts.
func (r *Runner) trustIn(id uint32) trust {
	switch h, _ := r.store.HostByID(id); {
	case h.Failing != 0:
		return doubted
	case h.LastSeen == 0:
		return untried
	}
	return trusted
}
