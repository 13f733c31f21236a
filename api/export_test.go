package api

import (
	"context"
	"net"
	"net/http"

	"cistern/api/clients"
	"cistern/store"

	"github.com/prometheus/client_golang/prometheus"
)

// WaitStreams waits until all streams have ended, after which none can begin.
func (s *Server) WaitStreams() { _ = s.streams.slots.Acquire(context.Background(), s.streams.max) }

// StreamHandler serves /stream from a log.
func StreamHandler(log Log, o Options) http.Handler {
	h, _ := StreamHandlerHolding(log, o, heldBytesMax)
	return h
}

// StreamHandlerHolding is StreamHandler with a limit of the bytes of long pages that subscribers
// hold. uses is how many of them hold or wait for one.
func StreamHandlerHolding(log Log, o Options, bytes int64) (h http.Handler, uses func() int) {
	o = o.withDefaults()
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		panic(err)
	}
	a := &answers{logger: o.Logger, metrics: m, fatal: make(chan error, 1)}
	streams := newStreams(o, log, "epoch1", m, a.watch)
	held := clients.NewTurns(bytes)
	streams.held = held
	return a.untimed("stream", streams.serve), held.Uses
}

// LimitListener bounds the connections of a listener.
func LimitListener(l net.Listener, limit, reserve, share int) net.Listener {
	return limitListener(l, clients.NewPlaces(limit, reserve, share), func() {}, func() {})
}

// HTTPServer is what serves the public listener (false) or the private one (true).
func (s *Server) HTTPServer(ctx context.Context, admin bool) *http.Server {
	if admin {
		return s.httpServer(ctx, s.Admin(), profileTimeout)
	}
	return s.httpServer(ctx, s.Public(), answerTimeout)
}

// Pager reads pages of a log.
type Pager struct{ pages *pages }

// NewPager makes one.
func NewPager(log Log, o Options) *Pager {
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		panic(err)
	}
	return &Pager{newStreams(o.withDefaults(), log, "epoch1", m, func(error) {}).pages}
}

// Read gives the page from cursor on.
func (p *Pager) Read(ctx context.Context, cursor uint64) (frames []byte, next uint64, err error) {
	pg, err := p.pages.read(ctx, cursor)
	if err != nil {
		return nil, 0, err
	}
	return pg.frames, pg.next, nil
}

// AppendEvent encodes one event.
func AppendEvent(ev *store.Event) (frame []byte, refused int) {
	var e encoder
	e.event(ev)
	return e.out, e.refused
}

// FrameEnd is frameEnd.
var FrameEnd = frameEnd

// BadDID is badDID.
var BadDID = badDID

// Answer is answer.
func (s *Server) Answer(w http.ResponseWriter, r *http.Request, err error) {
	s.answers.answer(w, r, err)
}
