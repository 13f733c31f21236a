package api

import (
	"context"
	"net"
	"net/http"
	"slices"
	"time"

	"cistern/api/clients"
)

// WaitStreams waits until all streams have ended.
func (s *Server) WaitStreams() error { return s.delivery.Wait(context.Background()) }

// LimitListener bounds the connections of a listener.
func LimitListener(l net.Listener, limit, reserve, share int) net.Listener {
	return clients.Limit(l, clients.NewPlaces(limit, reserve, share), func() {}, func() {}).LimitHeaders(largeHeader, clients.NewTurns(largeHeadersMax))
}

// HTTPServer is what serves the public listener (false) or the private one (true).
func (s *Server) HTTPServer(ctx context.Context, admin bool) *http.Server {
	if admin {
		return s.httpServer(ctx, s.Admin(), profileTimeout)
	}
	return s.httpServer(ctx, s.Public(), answerTimeout)
}

// Answer is answer.
func (s *Server) Answer(w http.ResponseWriter, r *http.Request, err error) {
	s.answers.answer(w, r, err)
}

// PublicPaths returns the paths of the public listener.
func (s *Server) PublicPaths() []string {
	paths := []string{"/"}
	for path := range s.reads() {
		paths = append(paths, path)
	}
	for name := range s.xrpc.methods {
		paths = append(paths, "/xrpc/"+name)
	}
	for name := range s.xrpc.links.Methods() {
		paths = append(paths, "/xrpc/"+name)
	}
	for name := range s.xrpc.lookups {
		paths = append(paths, "/xrpc/"+name)
	}
	for name := range s.xrpc.cars {
		paths = append(paths, "/xrpc/"+name)
	}
	slices.Sort(paths)
	return paths
}

// SetStatusClock sets the clock by which the figures of the status page age.
func (s *Server) SetStatusClock(now func() time.Time) { s.status.now = now }
