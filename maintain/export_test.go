package maintain

import "time"

// NextIn returns the first time from t on that is in the hours.
func NextIn(h Hours, t time.Time) time.Time { return h.next(t) }
