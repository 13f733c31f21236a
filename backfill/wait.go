package backfill

import (
	"net/http"
	"time"

	"cistern/backfill/pace"
)

// askedWait is how long the host wants to be left alone, clamped; 0 if it does not say.
func askedWait(h http.Header, now time.Time) time.Duration { return pace.AskedWait(h, now) }
