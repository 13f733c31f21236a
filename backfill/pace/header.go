package pace

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// epochMin is the least number that is read as seconds since 1970, not as seconds to wait.
const epochMin = 1_000_000_000

// Bounds of the wait that a header may ask for: no header stops requests for a day or provokes a
// flood.
const (
	askedMin = time.Second
	askedMax = time.Hour
)

// remainingNames are the headers with the number of requests left.
var remainingNames = [...]string{"Ratelimit-Remaining", "X-Ratelimit-Remaining"}

// resetNames are the headers with the end of a window.
var resetNames = [...]string{"Ratelimit-Reset", "X-Ratelimit-Reset"}

// AskedWait returns how long a host asks to wait, clamped: by Retry-After, or by RateLimit-Reset
// unless requests remain until then. It is 0 if the headers do not say.
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

// parseWait reads seconds, seconds since 1970, or an HTTP date, and clamps it.
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
	return time.Duration(min(max(n, int64(askedMin/time.Second)),
		int64(askedMax/time.Second))) * time.Second
}

// ParseQuota reads RateLimit-Limit, -Remaining and -Reset, or the window of RateLimit-Policy
// ("100;w=60") if the reset is missing. Without a remaining number or a time it returns the zero
// Quota.
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

// windowOf returns the length of the window in RateLimit-Policy, 0 if it is missing.
func windowOf(policy string) time.Duration {
	_, after, found := strings.Cut(policy, "w=")
	if !found {
		return 0
	}
	d, _ := parseWait(strconv.Itoa(leading(after)), time.Time{})
	return d
}

// number reads the leading number of the first of some headers that has one.
func number(h http.Header, names ...string) (n int, ok bool) {
	for _, name := range names {
		if v := strings.TrimSpace(h.Get(name)); v != "" && v[0] >= '0' && v[0] <= '9' {
			return leading(v), true
		}
	}
	return 0, false
}

// leading returns the number at the beginning of text, 0 without one.
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
