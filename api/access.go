package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"math"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"cistern/api/clients"
	"cistern/api/dashboard"
	"cistern/api/wire"

	"github.com/prometheus/client_golang/prometheus"
)

// open allows every web page to read the answers: everything on the public listener is public.
func open(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Access-Control-Expose-Headers", "*")
		// Caches keep what has no age as long as they like, but what an account hides must vanish.
		h.Set("Cache-Control", wire.CacheNot)
		if r.Method == http.MethodOptions {
			h.Set("Access-Control-Allow-Methods", "GET, HEAD")
			h.Set("Access-Control-Allow-Headers", "*")
			h.Set("Access-Control-Max-Age", "86400")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// access admits requests to the private listener.
type access struct {
	token    string                 // of the operator; "": no token
	requests *prometheus.CounterVec // route, result
	answers  *answers
	sessions *dashboard.Sessions
	brake    *clients.Brake // of wrong tokens
}

// guard admits only the operator (invariant 5).
func (a *access) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := a.admit(w.Header(), r); err != nil {
			a.requests.WithLabelValues("guard", "refused").Inc()
			if _, name, _ := classify(err); name == "AuthRequired" && r.URL.Path == "/" &&
				r.Method == http.MethodGet {
				seeOther(w, "login") // a browser that asks for the dashboard
				return
			}
			a.answers.answer(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// admit returns why a request is refused, nil if it is not. It may set a header of the answer.
func (a *access) admit(answer http.Header, r *http.Request) error {
	if origin := r.Header.Values("Origin"); len(origin) > 0 && !sameOrigin(origin, r.Host) {
		return wire.Refuse("Forbidden", "origin %s is not this server",
			wire.Echo(strings.Join(origin, ", ")))
	}
	// Requests for images and links carry no Origin, and could start a profile that runs for
	// minutes. Browsers state the site that such a request comes from.
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "none" && site != "same-origin" {
		return wire.Refuse("Forbidden", "the request comes from a page of another site (%s): open this "+
			"address directly", wire.Echo(site))
	}
	path := r.URL.Path
	switch {
	case path == "/healthz" || path == "/readyz":
		return nil // probes use any name, and their answers reveal nothing
	case a.token == "" && !ownHost(r):
		return wire.Refuse("Forbidden", "host %s is not this server's: use its loopback address, or "+
			"run it with a token", wire.Echo(r.Host))
	case a.token == "" || a.hasToken(r):
		return nil
	case path == "/login" || path == "/logout" || strings.HasPrefix(path, dashboard.Prefix):
		return nil // the page that asks for the token, its parts, and the way back to it
	case !a.sessions.Has(r):
		if r.Header.Get("Authorization") != "" { // a wrong token
			if wait := a.brake.Wrong(clients.Of(r.RemoteAddr)); wait > 0 {
				answer.Set("Retry-After", a.braked(r, wait))
				return wire.Refuse("RateLimitExceeded", "too many wrong tokens were given from "+
					"this address or from all together: wait before the next try")
			}
		}
		return wire.Refuse("AuthRequired",
			"give the admin token as a bearer token, or as the password of user admin")
	case r.Method != http.MethodGet && r.Method != http.MethodHead && r.Header.Get("Origin") == "":
		// Browsers state the origin of every request that is not a GET. Without, the cookie alone
		// would do, which a page on another port of this host could make a browser send.
		return wire.Refuse("Forbidden", "the request has a session and no Origin: give the admin token")
	}
	return nil
}

// braked logs that a client has to wait before it may try another token, and returns the seconds,
// for the header Retry-After.
func (a *access) braked(r *http.Request, wait time.Duration) string {
	a.answers.logger.Warn("a client has given too many wrong admin tokens: it has to wait before "+
		"each further try", "client", clients.Of(r.RemoteAddr), "wait", wait.Round(time.Second))
	return strconv.Itoa(int(math.Ceil(wait.Seconds())))
}

// hasToken reports whether a request has the token, as a bearer token or as a password.
func (a *access) hasToken(r *http.Request) bool {
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		user, password, ok := r.BasicAuth()
		if !ok || user != "admin" {
			return false
		}
		given = password
	}
	return a.isToken(given)
}

// isToken compares a text with the token in constant time, whatever its length.
func (a *access) isToken(given string) bool {
	is, want := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(a.token))
	return subtle.ConstantTimeCompare(is[:], want[:]) == 1
}

// sameOrigin reports whether the only Origin header names the host of the request.
func sameOrigin(origin []string, host string) bool {
	if len(origin) != 1 {
		return false
	}
	u, err := url.Parse(origin[0])
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && strings.EqualFold(u.Host, host)
}

// ownHost reports whether Host is a loopback name or the address that the request came in on.
// Another domain that resolves to this server (DNS rebinding) is not accepted.
func ownHost(r *http.Request) bool {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	if ip.Unmap().IsLoopback() {
		return true
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return ok && local.AddrPort().Addr().Unmap().WithZone("") == ip.Unmap().WithZone("")
}
