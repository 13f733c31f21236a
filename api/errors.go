package api

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"cistern/api/admin"
	"cistern/api/wire"
	"cistern/store"

	"github.com/prometheus/client_golang/prometheus"
)

// classify maps an error to a status, a name and a message. It is the only code that does.
func classify(err error) (status int, name, message string) {
	var r *wire.Refusal
	switch {
	case errors.As(err, &r):
		return cmp.Or(r.Status, refusalStatus(r.Name)), r.Name, r.Message
	case errors.Is(err, store.ErrCorrupt):
		return http.StatusInternalServerError, "InternalError", "the store is damaged; the daemon stops"
	case errors.Is(err, store.ErrNotFound):
		return http.StatusNotFound, "NotFound", "not found"
	case errors.Is(err, store.ErrFutureCursor):
		return http.StatusBadRequest, "FutureCursor", err.Error()
	case errors.Is(err, store.ErrOutdatedCursor):
		return http.StatusBadRequest, "OutdatedCursor", err.Error()
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return http.StatusServiceUnavailable, "Unavailable", "the request was given up"
	}
	return http.StatusInternalServerError, "InternalError", "internal error: see the daemon's log"
}

// refusalOf returns the name and the message of an error.
func refusalOf(err error) (name, message string) {
	_, name, message = classify(err)
	return name, message
}

// refusalStatus returns the status of a refusal. Refusals that AT Protocol defines have status 400,
// as on the reference PDS.
func refusalStatus(name string) int {
	switch name {
	case "AuthRequired":
		return http.StatusUnauthorized
	case "Forbidden":
		return http.StatusForbidden
	case "NotFound", "DictionaryNotFound":
		return http.StatusNotFound
	case "MethodNotAllowed":
		return http.StatusMethodNotAllowed
	case "Conflict":
		return http.StatusConflict
	case "PayloadTooLarge":
		return http.StatusRequestEntityTooLarge
	case "UnsupportedMediaType":
		return http.StatusUnsupportedMediaType
	case "UpgradeRequired":
		return http.StatusUpgradeRequired
	case "MethodNotImplemented", "EventsOnly", "BacklinksDisabled":
		return http.StatusNotImplemented
	case "RateLimitExceeded":
		return http.StatusTooManyRequests
	case "Unavailable":
		return http.StatusServiceUnavailable
	case "UpstreamFailure": // of a host, a directory or DNS
		return http.StatusBadGateway
	case "OperationFailed":
		return http.StatusInternalServerError
	}
	return http.StatusBadRequest
}

// handler handles a route. It either answers the request, or returns an error that answers.answer
// sends.
type handler func(w http.ResponseWriter, r *http.Request) error

// answers makes HTTP handlers of routes: it counts their requests and answers their errors.
type answers struct {
	logger  *slog.Logger
	metrics *metrics
	store   *store.Store
	fatal   chan error // the error with which Serve must end
}

// route returns a handler that answers with h and counts requests.
func (a *answers) route(name string, h handler) http.Handler {
	seconds := a.metrics.seconds.WithLabelValues(name)
	timed := a.untimed(name, h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		timed.ServeHTTP(w, r)
		seconds.Observe(time.Since(start).Seconds())
	})
}

// change is like turn, for a request that writes to the store.
func (a *answers) change(name string, h handler) http.Handler {
	return a.turn(name, a.unlessFrozen(h))
}

// unlessFrozen returns a handler that refuses requests while the store is frozen, rather than have
// them wait.
func (a *answers) unlessFrozen(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if a.store.Frozen() != nil {
			return wire.Refuse("Unavailable", "the daemon is suspended, and nothing can be "+
				"changed until it is resumed: see GET /phase")
		}
		return h(w, r)
	}
}

// turn is like route, for a request that changes something (invariant 5).
func (a *answers) turn(name string, h handler) http.Handler { return a.route(name, onlyJSON(h)) }

// onlyJSON returns a handler that refuses requests that a web page could make.
func onlyJSON(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if !wire.IsJSON(r) {
			return wire.Refuse("UnsupportedMediaType", "content type %s: want %s or %s",
				wire.Echo(r.Header.Get("Content-Type")), wire.TypeJSON, wire.TypeNDJSON)
		}
		return h(w, r)
	}
}

// operator returns a handler of a route of package admin, as its kind demands.
func (a *answers) operator(r admin.Route) http.Handler {
	switch r.Kind {
	case admin.Read:
		return a.route(r.Name, r.Handle)
	case admin.Control:
		return a.turn(r.Name, r.Handle)
	case admin.Wait:
		return a.untimed(r.Name, onlyJSON(r.Handle))
	case admin.Lend:
		return a.untimed(r.Name, onlyJSON(a.unlessFrozen(r.Handle)))
	}
	return a.change(r.Name, r.Handle)
}

// untimed is like route, but does not measure the time of an answer.
func (a *answers) untimed(name string, h handler) http.Handler {
	requests := a.metrics.requests.MustCurryWith(prometheus.Labels{"route": name})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		result := "ok"
		err := h(w, r)
		var cut *wire.CutError
		if errors.As(err, &cut) {
			a.watch(err)
			requests.WithLabelValues("cut").Inc()
			panic(http.ErrAbortHandler)
		}
		if err != nil {
			result = "refused"
			if status, _, _ := classify(err); status >= http.StatusInternalServerError {
				result = "failed"
			}
			a.answer(w, r, err)
		}
		requests.WithLabelValues(result).Inc()
	})
}

// unknown answers requests without a route: a wrong method or a wrong path.
func (a *answers) unknown(mux *http.ServeMux) http.Handler {
	return a.route("unknown", func(w http.ResponseWriter, r *http.Request) error {
		var allow []string
		for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodPost,
			http.MethodPatch, http.MethodDelete} {
			other := &http.Request{Method: method, URL: r.URL, Host: r.Host}
			if _, pattern := mux.Handler(other); pattern != "/" {
				allow = append(allow, method)
			}
		}
		if len(allow) == 0 {
			return wire.Refuse("NotFound", "there is nothing at %s", wire.Echo(r.URL.Path))
		}
		w.Header().Set("Allow", strings.Join(allow, ", "))
		return wire.Refuse("MethodNotAllowed", "%s takes %s, not %s", wire.Echo(r.URL.Path),
			strings.Join(allow, " and "), wire.Echo(r.Method))
	})
}

// answer sends err to the client. An internal error also goes to the log and to Serve. A refusal is
// none: an operation that fails has its own line in the log, and its own alert.
func (a *answers) answer(w http.ResponseWriter, r *http.Request, err error) {
	status, name, message := classify(err)
	if _, refused := errors.AsType[*wire.Refusal](err); status == http.StatusInternalServerError &&
		!refused {
		a.logger.Error("a request failed by an internal error",
			slog.String("path", r.URL.Path), slog.Any("err", err))
	}
	a.watch(err)
	for _, name := range []string{"ETag", "Cache-Control"} { // of the answer that failed
		w.Header().Del(name)
	}
	switch status {
	case http.StatusUnauthorized:
		w.Header().Add("WWW-Authenticate", `Bearer realm="cistern"`)
		// A browser would ask for a password in the middle of a page that only refreshes itself.
		if r.Header.Get("Sec-Fetch-Dest") != "empty" {
			w.Header().Add("WWW-Authenticate", `Basic realm="cistern", charset="UTF-8"`)
		}
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		if w.Header().Get("Retry-After") == "" {
			w.Header().Set("Retry-After", "1")
		}
	case http.StatusUpgradeRequired:
		w.Header().Set("Upgrade", "websocket")
	}
	var bare *wire.BareError
	if errors.As(err, &bare) {
		w.Header().Set("Cistern-Error", name+": "+message)
		w.WriteHeader(status)
		return
	}
	wire.WriteJSON(w, status, wire.ErrorBody{Error: name, Message: message})
}

// watch makes Serve end if err means that the store is damaged.
func (a *answers) watch(err error) {
	if errors.Is(err, store.ErrCorrupt) {
		select {
		case a.fatal <- err:
		default:
		}
	}
}
