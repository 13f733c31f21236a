package simnet

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Host is one server of the network: a PDS, the PLC directory or the relay.
type Host struct {
	name   string
	answer func(http.ResponseWriter, *http.Request, call)
	stream *stream // nil at the PLC directory
	relay  *relay  // nil but at a relay

	// mu guards:
	mu         sync.Mutex
	address    string // kept while down, so that it comes back where it was
	server     *http.Server
	serving    *errgroup.Group
	dead       bool // connections are reset
	conns      map[net.Conn]struct{}
	residents  []*Account // accounts that live or lived here, in the order they were made
	injections []*Injection
	log        Log
	meter      meter
	active     int        // requests being answered
	idle       *sync.Cond // signals that active fell to 0
}

// Log counts the requests to a host so far.
type Log struct {
	// Requests counts by endpoint: an NSID, or "did" and "log/audit" at the PLC directory.
	Requests map[string]int
	// Fetches has the time of every getRepo by DID.
	Fetches map[string][]time.Time
	// InFlight is the number of getRepo requests being answered, InFlightMax its highest value.
	InFlight, InFlightMax int
	// Resets has the time of every connection that came while the host was dead.
	Resets []time.Time
	// Refused counts the requests that a window had no room for, Excess those beyond Limit.InFlight:
	// each was answered 429.
	Refused, Excess int
	// Early counts, by endpoint, requests that came before the time that an answer had named, by
	// Retry-After or a spent quota. Requests within a second after the answer may have crossed it, and
	// do not count.
	Early map[string]int
}

// call is one request, reduced to what servers and faults look at.
type call struct {
	endpoint string
	did      string
	fault    *Injection   // a fault in the CAR to be sent; nil for none
	passed   []*Injection // latencies already suffered
}

const getRepo = "com.atproto.sync.getRepo"

func newHost(name string, answer func(http.ResponseWriter, *http.Request, call)) *Host {
	h := &Host{name: name, answer: answer}
	h.ResetLog()
	h.idle = sync.NewCond(&h.mu)
	return h
}

// URL is the base URL of the host, without a trailing slash; "" before it was first up.
func (h *Host) URL() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.address == "" {
		return ""
	}
	return "http://" + h.address
}

// Up makes the host listen, at the address it had if it was up before. It does nothing if it is up.
func (h *Host) Up() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stream != nil {
		h.stream.setDown(false)
	}
	h.dead = false
	if h.server != nil {
		return nil
	}
	listen := Listen
	if h.address != "" {
		listen = func() (net.Listener, error) { return net.Listen("tcp4", h.address) }
	}
	listener, err := listen()
	if err != nil {
		return fmt.Errorf("listen for %s: %w", h.name, err)
	}
	h.address = listener.Addr().String()
	server := &http.Server{
		Handler:           h,
		ConnState:         h.connState,
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0), // faults break connections on purpose
	}
	h.server, h.serving = server, new(errgroup.Group)
	h.serving.Go(func() error { return server.Serve(hostListener{listener, h}) })
	return nil
}

// Down makes the host refuse connections, breaks those it has, and waits for their handlers. It
// does nothing if it is down.
func (h *Host) Down() error {
	h.mu.Lock()
	server, serving := h.server, h.serving
	h.server, h.serving = nil, nil
	h.mu.Unlock()
	if server == nil {
		return nil
	}
	err := server.Close()
	if h.stream != nil {
		h.stream.setDown(true)
	}
	if serveErr := serving.Wait(); !errors.Is(serveErr, http.ErrServerClosed) {
		err = errors.Join(err, serveErr)
	}
	h.await()
	return err
}

// Log returns a copy of the counts.
func (h *Host) Log() Log {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.log
	l.Requests = maps.Clone(l.Requests)
	l.Early = maps.Clone(l.Early)
	l.Resets = slices.Clone(l.Resets)
	l.Fetches = make(map[string][]time.Time, len(h.log.Fetches))
	for did, at := range h.log.Fetches {
		l.Fetches[did] = append([]time.Time(nil), at...)
	}
	return l
}

// ResetLog resets the counts, except for requests in flight.
func (h *Host) ResetLog() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log = Log{
		Requests: make(map[string]int), Fetches: make(map[string][]time.Time),
		Early: make(map[string]int), InFlight: h.log.InFlight, InFlightMax: h.log.InFlight,
	}
}

// ServeHTTP answers one request, subject to the faults in force.
func (h *Host) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := parseCall(r)
	a := h.enter(c)
	defer h.leave(c)
	a.setHeader(w.Header())
	if a.wait > 0 {
		a.refuse(w)
		if a.spent {
			h.tellSpent(c, a)
		} else {
			h.tell(a.wait)
		}
		return
	}
	if a.quota > 0 && a.remaining == 0 {
		defer h.tellSpent(c, a)
	}
	h.meet(w, r, c)
}

// meet answers a request by the fault in force that matches, or else by the host.
func (h *Host) meet(w http.ResponseWriter, r *http.Request, c call) {
	for {
		fault := h.take(c)
		switch {
		case fault == nil:
			h.answer(w, r, c)
		case fault.fault.Kind == Latency:
			if !pause(r, fault.fault.Delay) {
				return
			}
			fault.fault.runHook()
			c.passed = append(c.passed, fault)
			continue
		case fault.fault.Kind.inCAR():
			c.fault = fault
			h.answer(w, r, c)
		default:
			fault.answer(w, r)
			h.tell(fault.fault.asked())
		}
		return
	}
}

func parseCall(r *http.Request) call {
	if endpoint, ok := strings.CutPrefix(r.URL.Path, "/xrpc/"); ok {
		did := r.URL.Query().Get("did")
		if did == "" {
			did = r.URL.Query().Get("repo")
		}
		return call{endpoint: endpoint, did: did}
	}
	did, endpoint, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	return call{endpoint: cmp.Or(endpoint, "did"), did: did}
}

func (h *Host) enter(c call) (a admission) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.active++
	h.log.Requests[c.endpoint]++
	if c.endpoint == getRepo {
		h.log.Fetches[c.did] = append(h.log.Fetches[c.did], time.Now())
		h.log.InFlight++
		h.log.InFlightMax = max(h.log.InFlightMax, h.log.InFlight)
	}
	if c.endpoint != subscribeRepos {
		a = h.admit(c, time.Now())
	}
	return a
}

func (h *Host) leave(c call) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.endpoint == getRepo {
		h.log.InFlight--
	}
	if c.endpoint != subscribeRepos {
		h.meter.open--
	}
	if h.active--; h.active == 0 {
		h.idle.Broadcast()
	}
}

// isPDS reports whether the host is one of the fleet.
func (h *Host) isPDS() bool { return strings.HasPrefix(h.name, "pds") }
