package maintain

import "time"

// NextIn returns the first time from t on that is in the hours.
func NextIn(h Hours, t time.Time) time.Time { return h.next(t) }

// Pausing returns how many callers of Pause wait.
func (c *Coordinator) Pausing() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pauses)
}
