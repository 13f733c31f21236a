package api

import (
	"context"
	"net/http"

	"cistern/api/atproto"
	"cistern/api/clients"
	"cistern/api/export"
	"cistern/api/wire"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// xrpcMethod is a query method.
type xrpcMethod struct {
	answer func(q wire.Query) (body []byte, err error)
	weight int64 // its part of queriesMax
}

// methods returns the queries by name.
func methods(r *atproto.Records) map[string]xrpcMethod {
	return map[string]xrpcMethod{
		"com.atproto.repo.describeRepo":    {r.DescribeRepo, listWeight},
		"com.atproto.repo.getRecord":       {r.GetRecord, 1},
		"com.atproto.repo.listRecords":     {r.ListRecords, listWeight},
		"com.atproto.sync.getLatestCommit": {r.GetLatestCommit, 1},
		"com.atproto.sync.getRepoStatus":   {r.GetRepoStatus, 1},
		"com.atproto.sync.listRepos":       {r.ListRepos, 1},
	}
}

// cars returns the queries that are answered with a CAR, by name.
func cars(e *export.Exports) map[string]handler {
	return map[string]handler{
		"com.atproto.sync.getRepo": e.GetRepo,
	}
}

// xrpc dispatches queries, and bounds their computation and memory.
type xrpc struct {
	methods map[string]xrpcMethod
	cars    map[string]handler
	answers *answers
	turns   *clients.Turns // acquired by the weight of a query
	large   *clients.Turns // acquired by the bytes of a long answer
}

// handler answers /xrpc/{method}. It answers unknown methods as the reference PDS does.
func (x *xrpc) handler() http.Handler {
	routes := make(map[string]http.Handler, len(x.methods)+len(x.cars))
	for name, h := range x.cars {
		routes[name] = x.answers.untimed(name, func(w http.ResponseWriter, r *http.Request) error {
			if err := isQuery(r); err != nil {
				return err
			}
			return h(w, r)
		})
	}
	for name, method := range x.methods {
		routes[name] = x.answers.route(name, func(w http.ResponseWriter, r *http.Request) error {
			return x.query(w, r, method)
		})
	}
	other := x.answers.route("other", func(_ http.ResponseWriter, r *http.Request) error {
		name := r.PathValue("method")
		if _, err := syntax.ParseNSID(name); err != nil {
			return wire.Invalid("xrpc path %s does not end in an NSID", wire.Echo(name))
		}
		return wire.Refuse("MethodNotImplemented", "method %s is not implemented here", wire.Echo(name))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := routes[r.PathValue("method")]; h != nil {
			h.ServeHTTP(w, r)
			return
		}
		other.ServeHTTP(w, r)
	})
}

// query computes a query when its turn comes, and answers it.
func (x *xrpc) query(w http.ResponseWriter, r *http.Request, method xrpcMethod) error {
	if err := isQuery(r); err != nil {
		return err
	}
	q, err := wire.ParseQuery(r)
	if err != nil {
		return err
	}
	body, err := x.compute(r.Context(), q, method)
	if err != nil {
		return err
	}
	if n := int64(len(body)); n >= largeAnswer {
		if !x.large.TryAcquire(q.Client, n) {
			return wire.Refuse("Unavailable", "too many long answers have not been read by their clients yet")
		}
		defer x.large.Release(q.Client, n)
	}
	wire.WriteBody(w, http.StatusOK, body)
	return nil
}

// isQuery refuses requests with another method than queries have.
func isQuery(r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return wire.Invalid("%s is a query: want GET, got %s", r.PathValue("method"), wire.Echo(r.Method))
	}
	return nil
}

// compute waits for the turn of a query, and returns its answer.
func (x *xrpc) compute(ctx context.Context, q wire.Query, method xrpcMethod) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, queryWait)
	defer cancel()
	if err := x.turns.Acquire(ctx, q.Client, method.weight); err != nil {
		return nil, wire.Refuse("Unavailable", "too many queries at a time")
	}
	defer x.turns.Release(q.Client, method.weight)
	return method.answer(q)
}
