package pace

// Timed is the number of hosts that have work and wait for a time.
func (s *Scheduler) Timed() int { return len(s.timed) }
