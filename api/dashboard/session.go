package dashboard

import (
	"crypto/rand"
	"crypto/sha256"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// sessionsMax bounds the sessions; the one that was used longest ago gives way.
	sessionsMax = 100
	// sessionIdle ends a session that is not used. An open dashboard uses its session.
	sessionIdle = 12 * time.Hour
	// cookiesMax bounds the cookies that are looked at: browsers keep some 180 for a host.
	cookiesMax = 200
)

// Sessions are the browsers that have given the token.
type Sessions struct {
	now func() time.Time

	mu   sync.Mutex
	used map[[sha256.Size]byte]time.Time // mu guards; last use by the hash of the value
}

// NewSessions returns Sessions without any. now is the clock.
func NewSessions(now func() time.Time) *Sessions {
	return &Sessions{now: now, used: map[[sha256.Size]byte]time.Time{}}
}

// Begin begins a session, and sets its cookie. secure means that the browser uses TLS.
func (s *Sessions) Begin(w http.ResponseWriter, r *http.Request, secure bool) {
	value := rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	for len(s.used) >= sessionsMax {
		s.dropOldest()
	}
	s.used[sha256.Sum256([]byte(value))] = s.now()
	setCookie(w, r, value, secure, 0)
}

// End ends the session of a request, and removes its cookie.
func (s *Sessions) End(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range r.CookiesNamed(cookieName(r)) {
		delete(s.used, sha256.Sum256([]byte(c.Value)))
	}
	setCookie(w, r, "", false, -1)
}

// Has reports whether a request is part of a session, and notes the use of the session. Any page of
// the host, on any port, may have set a cookie of the same name for a longer path, which comes
// first.
func (s *Sessions) Has(r *http.Request) bool {
	all := r.CookiesNamed(cookieName(r))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()
	for _, c := range all[:min(len(all), cookiesMax)] {
		hash := sha256.Sum256([]byte(c.Value))
		if _, ok := s.used[hash]; ok {
			s.used[hash] = s.now()
			return true
		}
	}
	return false
}

// expire drops the sessions that were not used for sessionIdle. s.mu is held.
func (s *Sessions) expire() {
	for hash, used := range s.used {
		if s.now().Sub(used) > sessionIdle {
			delete(s.used, hash)
		}
	}
}

// dropOldest drops the session that was used longest ago. s.mu is held.
func (s *Sessions) dropOldest() {
	var oldest [sha256.Size]byte
	first := true
	for hash, used := range s.used {
		if first || used.Before(s.used[oldest]) {
			oldest, first = hash, false
		}
	}
	delete(s.used, oldest)
}

// cookieName returns the name of the cookie for the host of a request. Browsers give cookies to
// every port of a host, and each port may be another daemon.
func cookieName(r *http.Request) string {
	if _, port, err := net.SplitHostPort(r.Host); err == nil && isDigits(port) {
		return "cistern_session_" + port
	}
	return "cistern_session"
}

func isDigits(s string) bool {
	for _, c := range s {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}

func setCookie(w http.ResponseWriter, r *http.Request, value string, secure bool, age int) {
	http.SetCookie(w, &http.Cookie{Name: cookieName(r), Value: value, Path: "/", MaxAge: age,
		HttpOnly: true, Secure: secure, SameSite: http.SameSiteStrictMode})
}
