package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"cistern/api/clients"

	"golang.org/x/sync/errgroup"
)

// ErrDraining means that requests or streams had not ended within DrainTimeout. They may still read
// the store, which therefore must not be closed.
var ErrDraining = errors.New("requests or streams have not ended")

// Serve answers on both listeners until ctx ends, a listener fails or the store is found damaged.
// Then it closes the listeners and drains: requests are finished, and streams are closed with 1001
// (going away), those of clients of tap without a close frame. It returns nil if ctx ended and
// draining took less than DrainTimeout. If draining took longer, the error includes ErrDraining.
func (s *Server) Serve(ctx context.Context, public, admin net.Listener) error {
	g, ctx := errgroup.WithContext(ctx)
	var drains errgroup.Group // separate, because g returns only its first error
	for _, l := range []struct {
		name     string
		listener net.Listener
		handler  http.Handler
		answer   time.Duration
	}{{"public", public, s.Public(), answerTimeout}, {"admin", admin, s.Admin(), profileTimeout}} {
		srv := s.httpServer(ctx, l.handler, l.answer)
		g.Go(func() error {
			refused, evicted := s.metrics.conns.WithLabelValues(connRefused).Inc,
				s.metrics.conns.WithLabelValues(connEvicted).Inc
			bounded := clients.Limit(l.listener, clients.NewPlaces(connsMax, connsReserve, connsShare),
				refused, evicted)
			err := srv.Serve(bounded.LimitHeaders(largeHeader, clients.NewTurns(largeHeadersMax)))
			if errors.Is(err, http.ErrServerClosed) {
				return nil
			}
			return fmt.Errorf("serve the %s listener: %w", l.name, err)
		})
		drains.Go(func() error { return s.drain(ctx, srv) })
	}
	g.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case err := <-s.answers.fatal:
			return err
		}
	})
	return errors.Join(g.Wait(), drains.Wait())
}

func (s *Server) httpServer(
	ctx context.Context, h http.Handler, answer time.Duration,
) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       bodyTimeout,
		WriteTimeout:      answer,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    headerBytesMax,
		ConnState:         clients.NoteState,
		ErrorLog:          slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug),
		// Streams end with ctx. Requests watch it only while they wait.
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
}

// drain waits for ctx, and then for the requests in flight and all streams.
func (s *Server) drain(ctx context.Context, srv *http.Server) error {
	<-ctx.Done()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.drainTimeout)
	defer cancel()
	_ = srv.Shutdown(ctx)                                // Serve reports the listener's errors
	if ctx.Err() == nil && s.delivery.Wait(ctx) == nil { // the server does not count streams
		return nil
	}
	return errors.Join(fmt.Errorf("%w (%s)", ErrDraining, s.drainTimeout), srv.Close())
}
