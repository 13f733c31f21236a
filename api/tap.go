package api

import (
	"net/http"

	"cistern/api/tap"
)

// newTap makes the handlers of tap's routes.
func (s *Server) newTap(o Options) (err error) {
	s.tap, err = tap.New(tap.Options{Store: o.Store, Subscriptions: s.registry, Add: s.admin.Follow,
		Remove: s.admin.Unfollow, Resolve: o.Resolve, Cursor: s.admin.Cursor})
	return err
}

// tapSide adds tap's routes. /channel is a stream, and package tap has the others.
func (s *Server) tapSide(mux *http.ServeMux) {
	route, change := s.answers.route, s.answers.change
	mux.Handle("GET /channel", s.answers.untimed("tap_channel", s.delivery.Tap))
	mux.Handle("GET /health", route("tap_health", s.tap.Health))
	mux.Handle("POST /repos/add", change("tap_add", s.tap.Add))
	mux.Handle("POST /repos/remove", change("tap_remove", s.tap.Remove))
	mux.Handle("GET /resolve/{did}", route("tap_resolve", s.tap.Resolve))
	mux.Handle("GET /info/{did}", route("tap_info", s.tap.Info))
	mux.Handle("GET /stats/repo-count", route("tap_stats", s.tap.RepoCount))
	mux.Handle("GET /stats/record-count", route("tap_stats", s.tap.RecordCount))
	mux.Handle("GET /stats/outbox-buffer", route("tap_stats", s.tap.OutboxBuffer))
	mux.Handle("GET /stats/resync-buffer", route("tap_stats", s.tap.ResyncBuffer))
	mux.Handle("GET /stats/cursors", route("tap_stats", s.tap.Cursors))
}
