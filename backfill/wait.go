package backfill

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// epochMin tells a time in seconds since 1970 from a number of seconds to wait.
const epochMin = 1_000_000_000

// askedWait is how long the host wants to be left alone, by Retry-After or RateLimit-Reset;
// clamped; 0 if it does not say.
func askedWait(h http.Header, now time.Time) time.Duration {
	for _, name := range []string{"Retry-After", "Ratelimit-Reset", "X-Ratelimit-Reset"} {
		if d, ok := parseWait(h.Get(name), now); ok {
			return d
		}
	}
	return 0
}

// parseWait reads seconds, seconds since 1970, or an HTTP date, and clamps what they say.
func parseWait(v string, now time.Time) (time.Duration, bool) {
	v = strings.TrimSpace(v)
	if v == "" {
		return 0, false
	}
	n, err := strconv.ParseUint(v, 10, 62)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return parkMax, true
	case err == nil && n >= epochMin:
		return clampSeconds(int64(n) - now.Unix()), true
	case err == nil:
		return clampSeconds(int64(n)), true
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0, false
	}
	return clampSeconds(at.Unix() - now.Unix()), true
}

func clampSeconds(n int64) time.Duration {
	return time.Duration(min(max(n, int64(parkMin/time.Second)), int64(parkMax/time.Second))) * time.Second
}

// exhausted says whether the host told with a good answer that the next one would be refused.
func exhausted(h http.Header) bool {
	return h.Get("Ratelimit-Remaining") == "0"
}
