package dashboard_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"cistern/api/dashboard"
)

// clock is a clock that the test moves.
type clock struct{ now time.Time }

func (c *clock) read() time.Time { return c.now }

// begin begins a session as a browser at a host, and returns its cookie.
func begin(s *dashboard.Sessions, host string, secure bool) *http.Cookie {
	r, w := httptest.NewRequest("POST", "/login", nil), httptest.NewRecorder()
	r.Host = host
	s.Begin(w, r, secure)
	return w.Result().Cookies()[0]
}

// has reports whether a request with the cookie is part of a session.
func has(s *dashboard.Sessions, host string, c *http.Cookie) bool {
	r := httptest.NewRequest("GET", "/", nil)
	r.Host = host
	if c != nil {
		r.AddCookie(c)
	}
	return s.Has(r)
}

func TestSession(t *testing.T) {
	t.Parallel()
	c := &clock{time.Unix(1_800_000_000, 0)}
	s := dashboard.NewSessions(c.read)
	const host = "localhost:2480"
	one, two := begin(s, host, false), begin(s, host, true)
	if one.Name != "cistern_session_2480" || !one.HttpOnly || one.Secure || one.SameSite != http.SameSiteStrictMode || one.Path != "/" || len(one.Value) < 26 || one.Value == two.Value {
		t.Errorf("%+v", one)
	}
	if !two.Secure {
		t.Error("a session by TLS has a cookie for plain HTTP")
	}
	forged := &http.Cookie{Name: one.Name, Value: strings.Repeat("A", len(one.Value))}
	for name, ok := range map[string]bool{
		"own":          has(s, host, one),
		"another":      has(s, host, two),
		"forged":       !has(s, host, forged),
		"none":         !has(s, host, nil),
		"other daemon": !has(s, "localhost:2482", one),
	} {
		if !ok {
			t.Errorf("%s: wrong", name)
		}
	}
	c.now = c.now.Add(11 * time.Hour)
	has(s, host, one) // is used
	c.now = c.now.Add(11 * time.Hour)
	if !has(s, host, one) || has(s, host, two) {
		t.Error("a session that is used ends, or one that is not used stays")
	}
	r, w := httptest.NewRequest("POST", "/logout", nil), httptest.NewRecorder()
	r.Host = host
	r.AddCookie(one)
	if s.End(w, r); w.Result().Cookies()[0].MaxAge != -1 || has(s, host, one) {
		t.Error("the session goes on after its end")
	}
}

// TestForeignCookie: a cookie of the same name that another page of the host has set hides no session.
func TestForeignCookie(t *testing.T) {
	t.Parallel()
	s := dashboard.NewSessions(time.Now)
	const host = "localhost:2480"
	own := begin(s, host, false)
	r, w := httptest.NewRequest("POST", "/logout", nil), httptest.NewRecorder()
	r.Host = host
	r.AddCookie(&http.Cookie{Name: own.Name, Value: "foreign"})
	if s.Has(r) {
		t.Error("a foreign cookie is a session")
	}
	r.AddCookie(own)
	if !s.Has(r) {
		t.Error("a foreign cookie hides the session")
	}
	if s.End(w, r); has(s, host, own) {
		t.Error("a foreign cookie keeps the session from its end")
	}
}

// TestSessionsAreBounded: of too many sessions the one that was used longest ago ends.
func TestSessionsAreBounded(t *testing.T) {
	t.Parallel()
	c := &clock{time.Unix(1_800_000_000, 0)}
	s := dashboard.NewSessions(c.read)
	var cookies []*http.Cookie
	for range 100 {
		cookies = append(cookies, begin(s, "cistern.example", true))
		c.now = c.now.Add(time.Second)
	}
	if cookies[0].Name != "cistern_session" || !has(s, "cistern.example", cookies[0]) {
		t.Errorf("the first of 100 is not kept: %s", cookies[0].Name)
	}
	begin(s, "cistern.example", true)
	if !has(s, "cistern.example", cookies[0]) || has(s, "cistern.example", cookies[1]) || !has(s, "cistern.example", cookies[2]) {
		t.Error("another session ended than the one that was used longest ago")
	}
}
