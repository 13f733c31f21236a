package pace

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// epochMin tells a time in seconds since 1970 from a number of seconds to wait.
const epochMin = 1_000_000_000

// What a host may ask of us, so that no header silences us for a day or makes us hammer.
const (
	askedMin = time.Second
	askedMax = time.Hour
)

// remainingNames are where the number of requests stands that are left.
var remainingNames = [...]string{"Ratelimit-Remaining", "X-Ratelimit-Remaining"}

// resetNames are where the end of a window stands.
var resetNames = [...]string{"Ratelimit-Reset", "X-Ratelimit-Reset"}

// AskedWait is how long the host wants to be left alone, by Retry-After, or by RateLimit-Reset unless requests remain until
// then; clamped; 0 if it does not say.
func AskedWait(h http.Header, now time.Time) time.Duration {
	if d, ok := parseWait(h.Get("Retry-After"), now); ok {
		return d
	}
	if left, ok := number(h, remainingNames[:]...); ok && left > 0 {
		return 0
	}
	d, _ := resetIn(h, now)
	return d
}

func resetIn(h http.Header, now time.Time) (time.Duration, bool) {
	for _, name := range resetNames {
		if d, ok := parseWait(h.Get(name), now); ok {
			return d, true
		}
	}
	return 0, false
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
		return askedMax, true
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
	return time.Duration(min(max(n, int64(askedMin/time.Second)), int64(askedMax/time.Second))) * time.Second
}

// ParseQuota reads RateLimit-Limit, -Remaining and -Reset, or the window of RateLimit-Policy ("100;w=60") where the
// reset is missing. Without a number that remains or a time it gives the zero Quota.
func ParseQuota(h http.Header, now time.Time) Quota {
	left, ok := number(h, remainingNames[:]...)
	if !ok {
		return Quota{}
	}
	limit, _ := number(h, "Ratelimit-Limit", "X-Ratelimit-Limit")
	policy := h.Get("Ratelimit-Policy")
	if limit == 0 {
		limit = leading(policy)
	}
	window := windowOf(policy)
	d, ok := resetIn(h, now)
	if !ok {
		if d = window; d == 0 {
			return Quota{}
		}
	}
	return Quota{Limit: limit, Remaining: left, Reset: now.Add(d), Window: window}
}

// windowOf is the length of the window that a RateLimit-Policy names, 0 if it names none.
func windowOf(policy string) time.Duration {
	_, after, found := strings.Cut(policy, "w=")
	if !found {
		return 0
	}
	d, _ := parseWait(strconv.Itoa(leading(after)), time.Time{})
	return d
}

// number reads the number that one of some headers begins with.
func number(h http.Header, names ...string) (n int, ok bool) {
	for _, name := range names {
		if v := strings.TrimSpace(h.Get(name)); v != "" && v[0] >= '0' && v[0] <= '9' {
			return leading(v), true
		}
	}
	return 0, false
}

// leading is the number at the beginning of text, 0 if there is none.
func leading(s string) int {
	const numberMax = 1 << 40
	n := 0
	for _, c := range []byte(strings.TrimSpace(s)) {
		if c < '0' || c > '9' || n >= numberMax {
			break
		}
		n = 10*n + int(c-'0')
	}
	return n
}
