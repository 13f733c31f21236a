package api

import (
	"context"
	"net/http"

	"cistern/api/atproto"
	"cistern/api/collections"
	"cistern/api/wire"
)

// aboutCollections returns the routes of package collections, by path.
func (s *Server) aboutCollections(c *collections.Collections) map[string]http.Handler {
	routes := map[string]http.Handler{
		"/collections":              s.plain("collections", short(c.List), 1),
		"/collections/{collection}": s.plain("collection", short(c.Show), 1),
		"/counts":                   s.plain("counts", short(c.Counts), 1),
	}
	records := s.plain("collection_records", c.Records, listWeight)
	if s.answers.store.Ephemeral() {
		records = s.answers.route("collection_records", func(http.ResponseWriter, *http.Request) error {
			return wire.EventsOnly()
		})
	}
	routes["/collections/{collection}/records"] = records
	return routes
}

// plain returns the handler of a query that is no method of XRPC, within the limits of queries. The
// collection in its path is a parameter; the parameter did may be repeated.
func (s *Server) plain(
	name string, answer func(context.Context, wire.Query) ([]byte, error), weight int64,
) http.Handler {
	return s.answers.route(name, func(w http.ResponseWriter, r *http.Request) error {
		q, err := wire.ParseQuery(r, "did")
		if err != nil {
			return err
		}
		if collection := r.PathValue("collection"); collection != "" {
			q = q.With("collection", collection)
		}
		return s.xrpc.respond(w, r, q, xrpcLookup{
			look: func(_ context.Context, q wire.Query) (atproto.Answer, error) {
				return func(ctx context.Context) ([]byte, error) { return answer(ctx, q) }, nil
			}, weight: weight})
	})
}
