package api

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"cistern/api/atproto"
	"cistern/api/backlinks"
	"cistern/api/clients"
	"cistern/api/export"
	"cistern/api/wire"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// xrpcMethod is a query method.
type xrpcMethod struct {
	answer func(ctx context.Context, q wire.Query) (body []byte, err error)
	weight int64 // its part of queriesMax
}

// methods returns the queries by name.
func methods(r *atproto.Records) map[string]xrpcMethod {
	return map[string]xrpcMethod{
		"com.atproto.sync.getHostStatus":   {short(r.GetHostStatus), 1},
		"com.atproto.sync.getLatestCommit": {short(r.GetLatestCommit), 1},
		"com.atproto.sync.getRepoStatus":   {short(r.GetRepoStatus), 1},
		"com.atproto.sync.listHosts":       {short(r.ListHosts), 1},
		"com.atproto.sync.listRepos":       {short(r.ListRepos), 1},

		"com.atproto.sync.listReposByCollection": {r.ListReposByCollection, listWeight},
	}
}

// short returns the answer of a query that is computed at one go.
func short(
	answer func(wire.Query) ([]byte, error),
) func(context.Context, wire.Query) ([]byte, error) {
	return func(_ context.Context, q wire.Query) ([]byte, error) { return answer(q) }
}

// cars returns the queries that are answered with a CAR, by name.
func cars(e *export.Exports) map[string]handler {
	return map[string]handler{
		"com.atproto.sync.getBlocks": e.GetBlocks,
		"com.atproto.sync.getRecord": e.GetRecord,
		"com.atproto.sync.getRepo":   e.GetRepo,
	}
}

// xrpcLookup is a query method that looks up names before it waits for its turn: a slow host must
// not keep other queries waiting.
type xrpcLookup struct {
	look   func(ctx context.Context, q wire.Query) (atproto.Answer, error)
	weight int64 // of the answer
}

// lookups returns the queries that look up names, by name.
func lookups(r *atproto.Records) map[string]xrpcLookup {
	return map[string]xrpcLookup{
		"com.atproto.identity.resolveDid":      {r.ResolveDID, 1},
		"com.atproto.identity.resolveHandle":   {r.ResolveHandle, 1},
		"com.atproto.identity.resolveIdentity": {r.ResolveIdentity, 1},
		"com.atproto.repo.describeRepo":        {r.DescribeRepo, listWeight},
		"com.atproto.repo.getRecord":           {r.OfAccount(r.GetRecord), 1},
		"com.atproto.repo.listRecords":         {r.OfAccount(r.ListRecords), listWeight},

		"blue.microcosm.identity.resolveMiniDoc":  {r.ResolveMiniDoc, 1},
		"blue.microcosm.repo.getRecordByUri":      {r.GetRecordByURI, 1},
		"com.bad-example.identity.resolveMiniDoc": {r.ResolveMiniDoc, 1},
		"com.bad-example.repo.getUriRecord":       {r.GetRecordByURI, 1},
	}
}

// recordless are the queries that need no records. An ephemeral store answers no other: what it
// still has says nothing about a repository.
var recordless = []string{
	"blue.microcosm.identity.resolveMiniDoc", "com.bad-example.identity.resolveMiniDoc",
	"com.atproto.identity.resolveDid", "com.atproto.identity.resolveHandle",
	"com.atproto.identity.resolveIdentity", "com.atproto.sync.getHostStatus",
	"com.atproto.sync.getLatestCommit", "com.atproto.sync.getRepoStatus",
	"com.atproto.sync.listHosts", "com.atproto.sync.listRepos",
}

// repeated returns the parameter of a method that may be given several times, "" if no parameter
// may.
func repeated(method string) string {
	if method == "com.atproto.sync.listReposByCollection" {
		return "collection"
	}
	return ""
}

// xrpc dispatches queries, and bounds their computation and memory.
type xrpc struct {
	methods map[string]xrpcMethod
	lookups map[string]xrpcLookup
	cars    map[string]handler
	links   *backlinks.Backlinks
	answers *answers
	turns   *clients.Turns // acquired by the weight of a query
	queue   *clients.Queue // of the processors
	large   *clients.Turns // acquired by the bytes of a long answer
	coder   *coder
}

// handler answers /xrpc/{method}. It answers unknown methods as the reference PDS does.
func (x *xrpc) handler() http.Handler {
	routes := make(map[string]http.Handler, len(x.methods)+len(x.lookups)+len(x.cars))
	for name, h := range x.cars {
		routes[name] = x.answers.untimed(name, func(w http.ResponseWriter, r *http.Request) error {
			if err := isQuery(r); err != nil {
				return err
			}
			return h(w, r)
		})
	}
	for name, method := range x.lookups {
		routes[name] = x.answers.route(name, func(w http.ResponseWriter, r *http.Request) error {
			return x.query(w, r, method)
		})
	}
	for name, method := range x.links.Methods() {
		routes[name] = x.backlinks(name, method)
	}
	for name, method := range x.methods {
		look := func(_ context.Context, q wire.Query) (atproto.Answer, error) {
			return func(ctx context.Context) ([]byte, error) { return method.answer(ctx, q) }, nil
		}
		routes[name] = x.answers.route(name, func(w http.ResponseWriter, r *http.Request) error {
			return x.query(w, r, xrpcLookup{look, method.weight}, repeated(name))
		})
	}
	for name := range routes {
		if x.answers.store.Ephemeral() && !slices.Contains(recordless, name) {
			routes[name] = x.answers.route(name, func(http.ResponseWriter, *http.Request) error {
				return wire.EventsOnly()
			})
		}
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

// backlinks answers a query for links. Errors have no body, as those of the service that clients
// know; a header has the reason.
func (x *xrpc) backlinks(name string, method backlinks.Method) http.Handler {
	look := func(_ context.Context, q wire.Query) (atproto.Answer, error) {
		return func(context.Context) ([]byte, error) { return method(q) }, nil
	}
	return x.answers.route(name, func(w http.ResponseWriter, r *http.Request) error {
		if !x.links.Enabled() {
			return backlinks.Disabled()
		}
		err := x.query(w, r, xrpcLookup{look, listWeight}, backlinks.Repeated()...)
		if err != nil {
			return &wire.BareError{Cause: err}
		}
		return nil
	})
}

// query computes a query when its turn comes, and answers it.
func (x *xrpc) query(
	w http.ResponseWriter, r *http.Request, method xrpcLookup, repeated ...string,
) error {
	if err := isQuery(r); err != nil {
		return err
	}
	q, err := wire.ParseQuery(r, repeated...)
	if err != nil {
		return err
	}
	return x.respond(w, r, q, method)
}

// respond computes and answers a query whose parameters are read.
func (x *xrpc) respond(
	w http.ResponseWriter, r *http.Request, q wire.Query, method xrpcLookup,
) error {
	q.Header, q.Buffer = w.Header(), wire.NewBuffer()
	defer q.Buffer.Free()
	answer, err := method.look(r.Context(), q)
	if err != nil {
		return err
	}
	body, err := x.compute(r, w.Header(), q.Client, method.weight, answer)
	if errors.Is(err, wire.ErrUnchanged) {
		w.Header().Add("Vary", "Accept-Encoding") // as caches must learn (RFC 9110, section 15.4.5)
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if err != nil {
		return err
	}
	body.head(w.Header())
	if n := int64(len(body.bytes)); n >= largeAnswer {
		if !x.large.TryAcquire(q.Client, n) {
			return wire.Refuse("Unavailable",
				"too many long answers have not been read by their clients yet")
		}
		defer x.large.Release(q.Client, n)
	}
	wire.WriteBody(w, http.StatusOK, body.bytes)
	return nil
}

// isQuery refuses requests with another method than queries have.
func isQuery(r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return wire.Invalid("%s is a query: want GET, got %s", r.PathValue("method"), wire.Echo(r.Method))
	}
	return nil
}

// compute waits for the turn of a query, and returns its answer as the client accepts it.
func (x *xrpc) compute(
	r *http.Request, header http.Header, client netip.Prefix, weight int64, answer atproto.Answer,
) (coded, error) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	waited := time.AfterFunc(queryWait, cancel)
	if err := x.turns.Acquire(ctx, client, weight); err != nil {
		return coded{}, wire.Refuse("Unavailable", "too many queries at a time")
	}
	defer x.turns.Release(client, weight)
	slotted, leave, err := x.queue.Enter(ctx, client)
	if err != nil {
		return coded{}, wire.Refuse("Unavailable", "too many queries at a time")
	}
	defer leave()
	waited.Stop()
	body, err := answer(slotted)
	if err != nil {
		return coded{}, err
	}
	return x.coder.code(r, cmp.Or(header.Get("Content-Type"), wire.TypeJSON), body), nil
}

// health returns the handler of GET /xrpc/_health, the probe of AT Protocol clients.
func health(version string) handler {
	return func(w http.ResponseWriter, _ *http.Request) error {
		wire.WriteJSON(w, http.StatusOK, struct {
			Version string `json:"version"`
		}{version})
		return nil
	}
}
