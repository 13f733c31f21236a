package pace_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"cistern/backfill/pace"
)

// TestQuotas: the headers that real hosts send are read.
func TestQuotas(t *testing.T) {
	t.Parallel()
	now := epoch
	in := func(d time.Duration) string { return fmt.Sprint(now.Add(d).Unix()) }
	cases := map[string]struct {
		headers string
		want    pace.Quota
	}{
		"reference PDS":   {"RateLimit-Limit: 3000, RateLimit-Remaining: 2998, RateLimit-Reset: " + in(200*time.Second) + ", RateLimit-Policy: 3000;w=300", pace.Quota{3000, 2998, now.Add(200 * time.Second), 5 * time.Minute}},
		"draft":           {"RateLimit-Limit: 100, RateLimit-Remaining: 7, RateLimit-Reset: 30", pace.Quota{100, 7, now.Add(30 * time.Second), 0}},
		"X-":              {"X-RateLimit-Limit: 100, X-RateLimit-Remaining: 0, X-RateLimit-Reset: 30", pace.Quota{100, 0, now.Add(30 * time.Second), 0}},
		"policy only":     {"RateLimit-Remaining: 5, RateLimit-Policy: 10;w=60", pace.Quota{10, 5, now.Add(time.Minute), time.Minute}},
		"no reset":        {"RateLimit-Limit: 100, RateLimit-Remaining: 7", pace.Quota{}},
		"nothing":         {"", pace.Quota{}},
		"no number":       {"RateLimit-Remaining: many, RateLimit-Reset: 30", pace.Quota{}},
		"reset is past":   {"RateLimit-Remaining: 1, RateLimit-Reset: " + in(-time.Hour), pace.Quota{0, 1, now.Add(time.Second), 0}},
		"reset is absurd": {"RateLimit-Remaining: 1, RateLimit-Reset: 99999999999999999999", pace.Quota{0, 1, now.Add(time.Hour), 0}},
	}
	for name, c := range cases {
		h := http.Header{}
		for _, line := range strings.Split(c.headers, ", ") {
			if k, v, ok := strings.Cut(line, ": "); ok {
				h.Set(k, v)
			}
		}
		if got := pace.ParseQuota(h, now); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// TestRules: limits are read as an operator writes them.
func TestRules(t *testing.T) {
	t.Parallel()
	var rules pace.Rules
	for _, s := range []string{"*.Example.com=4:10:5000:100000", "a.test=:3", "*.test=2", "127.0.0.1:*=7", "c.example:81=5"} {
		r, err := pace.ParseRule(s)
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		if _, numbers, _ := strings.Cut(s, "="); r.Override.String() != numbers {
			t.Errorf("%s is written as %s", s, r.Override)
		}
		rules = append(rules, r)
	}
	rules = append(rules, pace.Rule{Glob: "b.*", Banned: true})
	for host, want := range map[string]pace.Override{
		"pds.example.com": {Concurrency: 4, PerSecond: 10, PerHour: 5000, PerDay: 100_000}, "example.com": {},
		"a.test": {PerSecond: 3}, "b.test": {Concurrency: 2}, "127.0.0.1:80": {Concurrency: 7}, "": {},
		// A glob without a port matches every port.
		"b.test:81": {Concurrency: 2}, "c.example:81": {Concurrency: 5}, "c.example": {}, "c.example:82": {}, "127.0.0.1": {},
	} {
		if got, banned := rules.Of(host); got != want || banned != strings.HasPrefix(host, "b.test") {
			t.Errorf("%q: %+v, banned %v", host, got, banned)
		}
	}
	for _, s := range []string{"", "a", "a=", "=1", "a=0", "a=x", "a=-1", "a=1:2:3:4:5", "a=1001", "[=1", "a/b=1", "a=1,2"} {
		if r, err := pace.ParseRule(s); err == nil {
			t.Errorf("%q was read as %+v", s, r)
		}
	}
}
