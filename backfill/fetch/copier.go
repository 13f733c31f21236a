package fetch

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"cistern/ingest/repo"
)

// Copier makes verified copies of repositories. Its methods are safe for concurrent use.
type Copier struct {
	opts      Options
	header    http.Header // of requests for CARs; shared, never changed
	zipping   http.Header // of requests that hold a permit for a zstd body; likewise
	asking    http.Header // of other queries about a repository; likewise
	chunks    *repo.ChunkPool
	memory    *budget // of bodies, and parts of repositories
	spools    *budget
	indexes   *budget
	long      *budget // places for long transfers
	decode    decoders
	wholeOnly *wholeOnly
	metrics   *metrics
}

// New makes a Copier.
func New(opts Options) (*Copier, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, err
	}
	c := &Copier{
		opts:    opts,
		header:  queryHeader(opts.UserAgent, carType, "gzip"),
		zipping: queryHeader(opts.UserAgent, carType, "zstd, gzip"),
		asking:  queryHeader(opts.UserAgent, "application/json", "gzip"),
		chunks:  repo.NewChunkPool(idleChunkBytes),
		memory:  newBudget(opts.bodyBytes()),
		spools:  newBudget(opts.SpoolBytes),
		indexes: newBudget(max(indexBytesMax, indexPerBlock*int64(opts.CARBlocksMax))),
		long:    newBudget(int64(opts.longMax())),
	}
	c.decode.permits = newBudget(opts.zstdBodies())
	var err error
	if c.wholeOnly, err = newWholeOnly(); err != nil {
		return nil, err
	}
	if c.metrics, err = newMetrics(opts.Registerer); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return c, nil
}

func queryHeader(userAgent, accept, encodings string) http.Header {
	return http.Header{
		"Accept":          {accept},
		"Accept-Encoding": {encodings},
		"User-Agent":      {userAgent},
	}
}

// Copy gets what is wanted of a repository from its host, and checks everything. The copy must be
// closed.
func (c *Copier) Copy(ctx context.Context, req *Request) (*Copy, error) {
	s := &session{c: c, to: &req.Target, req: req}
	records, way, err := s.sparse(ctx)
	if records == nil && err == nil {
		records, err = s.fetchAll(ctx)
	}
	if err != nil {
		s.forgetMemory()
		return nil, err
	}
	c.metrics.fetches.WithLabelValues(way).Inc()
	return s.copyOf(records), nil
}

// Query sends a query about the repository to its host. query is the part of the URL that follows
// the DID.
func (c *Copier) Query(ctx context.Context, to *Target, method, query string, bodyMax int64) (
	body []byte, err error) {
	s := &session{c: c, to: to}
	err = s.watched(ctx, func(ctx context.Context, tr *transfer) error {
		body, err = s.answer(ctx, tr, method, query, bodyMax)
		return err
	})
	return body, err
}

// FetchWhole makes the next copy of a repository use one request, because its host did not accept
// the queries of this one. A permit allows one request, and it may be minutes until the host
// accepts another.
func (c *Copier) FetchWhole(did string) { c.wholeOnly.wholeNext(did) }

// FetchesWhole reports whether FetchWhole was called for a repository that was not fetched since.
func (c *Copier) FetchesWhole(did string) bool { return c.wholeOnly.asksWhole(did) }

// Taken returns the bytes of memory, spools and indexes that copies hold now.
func (c *Copier) Taken() (memory, spools, indexes int64) {
	return c.memory.taken(), c.spools.taken(), c.indexes.taken()
}

// Copy is a verified copy of a repository, or of its wanted part.
type Copy struct {
	records
	session *session // whose memory the copy takes

	Commit repo.Commit
	Block  []byte // the signed commit
	Former bool   // signed by a key that the document no longer names
	Signal bool   // the copy has a record in a collection that a signal names
}

// copyOf returns the copy of what the session has verified.
func (s *session) copyOf(records records) *Copy {
	return &Copy{
		records: records, session: s,
		Commit: s.commit, Block: s.block, Former: s.former, Signal: s.signal,
	}
}

// records are the records of a verified copy, in key order: a repo.CAR or a repo.Partial.
type records interface {
	Blocks() int
	Bytes() int64
	Walk(data repo.CID, fn func(repo.Leaf) error) error
	Close() error
}

// Walk calls fn for each record in key order. A partial copy has only the wanted records, and not
// the blocks of records that the caller already stores.
func (c *Copy) Walk(fn func(repo.Leaf) error) error { return c.records.Walk(c.Commit.Data, fn) }

// Close gives back memory and spool.
func (c *Copy) Close() error {
	err := c.records.Close()
	c.session.forgetMemory()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSpool, err)
	}
	return nil
}

// fetchAll gets and checks the whole repository.
func (s *session) fetchAll(ctx context.Context) (records, error) {
	car, err := s.whole(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.verify(ctx, car); err != nil {
		return nil, errors.Join(err, car.Close())
	}
	return car, nil
}

// whole gets the whole repository, every block hashed.
func (s *session) whole(ctx context.Context) (car *repo.CAR, err error) {
	err = s.watched(ctx, func(ctx context.Context, tr *transfer) error {
		car, err = s.transfer(ctx, tr, repoMethod, "", s.wholeCAR())
		return err
	})
	return car, err
}

// wholeCAR returns the limits of the CAR of a whole repository.
func (s *session) wholeCAR() repo.CAROptions {
	return repo.CAROptions{
		BytesMax: s.c.opts.CARBytesMax, BlocksMax: s.c.opts.CARBlocksMax, GrowIndex: s.growIndex,
	}
}
