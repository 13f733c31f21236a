package fetch

import (
	"net/http"

	"cistern/filter"
	"cistern/ingest/identity"
	"cistern/ingest/repo"
)

// Target is a repository at its host.
type Target struct {
	DID    string
	Ident  identity.Identity // names the host and the key
	HostID uint32            // of the host that Ident names
	Host   Host              // by whose permit the host is asked
}

// Host sends requests, and charges them to a host's permit. It is used by one goroutine at a time.
type Host interface {
	// Do sends a request when the host may be asked once more. A request that is redirected is
	// charged to the host that it is sent to.
	Do(req *http.Request) (*http.Response, error)
	// Received takes the number of bytes that came of a body, before decompression.
	Received(bytes int64)
	// Spares reports whether the host announced no quota of queries, or has at least half of it left.
	Spares() bool
}

// Request describes the wanted part of a repository.
type Request struct {
	Target
	Fresh    bool           // Ident was asked for now, not remembered
	Filter   *filter.Filter // chooses the records
	OnSignal bool           // the caller needs to know whether a signal names one of the records
	Failures uint32         // attempts that failed in a row
	Rev      string         // that is held: no older commit is taken
	TornRev  string         // of which a part is held, likewise
	Held     *Held          // nil if no records are held
}

// Held is what is held of a repository.
type Held struct {
	Records int64
	// Filter is by which they were chosen.
	Filter func() (*filter.Filter, error)
	// Skip leaves the records that are held out of a part. They stay as they are until the copy is
	// closed.
	Skip func(part *repo.Partial) error
}
