package api

import (
	"net/http"
	"slices"

	"cistern/api/durable"
	"cistern/api/tap"
	"cistern/store"
)

// newTap makes the handlers of tap's routes.
func (s *Server) newTap(o Options, r *durable.Registry) (err error) {
	s.tap, err = tap.New(tap.Options{Store: o.Store, Subscriptions: r, Add: s.changes.addForTap,
		Remove: s.changes.removeForTap, Resolve: o.Resolve, Cursor: s.sources.cursor})
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

// addForTap follows repositories.
func (c *changes) addForTap(dids []string) error {
	if err := notExcluded(c.store.Filter(), dids); err != nil {
		return err
	}
	return c.apply(outcomesOf(dids), follow)
}

// removeForTap stops following repositories, and keeps their data.
func (c *changes) removeForTap(dids []string) error { return c.apply(outcomesOf(dids), untrack) }

// outcomesOf returns a map with these keys.
func outcomesOf(dids []string) map[string]string {
	outcomes := make(map[string]string, len(dids))
	for _, did := range dids {
		outcomes[did] = ""
	}
	return outcomes
}

// follow is track for a client of tap. Tap forgets a repository that is removed, and sends all its
// records when it is added again: a copy that was kept is listed again, before what the fetch
// changes of it.
func follow(b *store.Batch, row *store.Repo) (string, error) {
	again := row.Known() && row.Tracked == store.Untracked && row.Ordinal != 0
	if again && !row.Status.Hidden() {
		if err := b.Relist(row); err != nil {
			return "", err
		}
	}
	return track(b, row)
}

// cursor returns the durable cursor of the only source, besides sources that were added because
// relays leave out accounts. ok is false if the number of sources is not one.
func (s *sources) cursor() (seq int64, ok bool) {
	if s.firehose.Sources == nil {
		return 0, false
	}
	direct := func(src Source) bool { return src.Direct }
	all := slices.DeleteFunc(s.firehose.Sources(), direct)
	if len(all) != 1 {
		return 0, false
	}
	return all[0].Cursor, true
}
