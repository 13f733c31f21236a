package api

import (
	"context"
	"net/http"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// xrpcMethod is a query method.
type xrpcMethod struct {
	answer func(q query) (body []byte, err error)
	weight int64 // of queriesMax
}

func (s *Server) xrpcMethods() map[string]xrpcMethod {
	return map[string]xrpcMethod{
		"com.atproto.repo.describeRepo":    {s.describeRepo, listWeight},
		"com.atproto.repo.getRecord":       {s.getRecord, 1},
		"com.atproto.repo.listRecords":     {s.listRecords, listWeight},
		"com.atproto.sync.getLatestCommit": {s.getLatestCommit, 1},
		"com.atproto.sync.getRepoStatus":   {s.getRepoStatus, 1},
		"com.atproto.sync.listRepos":       {s.listRepos, 1},
	}
}

// xrpc answers /xrpc/{method}, unknown methods as the reference PDS does.
func (s *Server) xrpc(methods map[string]xrpcMethod) http.Handler {
	routes := make(map[string]http.Handler, len(methods))
	for name, method := range methods {
		routes[name] = s.answers.route(name, func(w http.ResponseWriter, r *http.Request) error { return s.query(w, r, method) })
	}
	other := s.answers.route("other", func(_ http.ResponseWriter, r *http.Request) error {
		name := r.PathValue("method")
		if _, err := syntax.ParseNSID(name); err != nil {
			return invalid("xrpc path %s does not end in an NSID", echo(name))
		}
		return refuse("MethodNotImplemented", "method %s is not implemented here", echo(name))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := routes[r.PathValue("method")]; h != nil {
			h.ServeHTTP(w, r)
			return
		}
		other.ServeHTTP(w, r)
	})
}

// query waits for its turn and answers.
func (s *Server) query(w http.ResponseWriter, r *http.Request, method xrpcMethod) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return invalid("%s is a query: want GET, got %s", r.PathValue("method"), echo(r.Method))
	}
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	body, err := s.compute(r.Context(), q, method)
	if err != nil {
		return err
	}
	if n := int64(len(body)); n >= largeAnswer {
		if !s.large.tryAcquire(q.client, n) {
			return refuse("Unavailable", "too many long answers have not been read by their clients yet")
		}
		defer s.large.release(q.client, n)
	}
	writeBody(w, http.StatusOK, body)
	return nil
}

// compute waits for its turn.
func (s *Server) compute(ctx context.Context, q query, method xrpcMethod) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, queryWait)
	defer cancel()
	if err := s.queries.acquire(ctx, q.client, method.weight); err != nil {
		return nil, refuse("Unavailable", "too many queries at a time")
	}
	defer s.queries.release(q.client, method.weight)
	return method.answer(q)
}
