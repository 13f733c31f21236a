package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"cistern/backfill/hosts"
	"cistern/ingest/identity"
	"cistern/ingest/repo"
)

// carType is the content type of a CAR.
const carType = "application/vnd.ipld.car"

// session asks the host of one repository. It belongs to one goroutine at a time.
type session struct {
	c   *Copier
	to  *Target
	req *Request // nil for a query

	memory int64 // of the body, taken from Copier.memory
	kept   int64 // of a part of a repository, taken from Copier.memory
	index  int64 // taken from Copier.indexes

	sender string // host and port that sent the CAR, redirects followed
	commit repo.Commit
	block  []byte // the signed commit
	former bool   // signed by a key that the document no longer names
	signal bool   // the copy has a record in a collection that a signal names
}

// watched runs a request under the watch of a transfer.
func (s *session) watched(
	ctx context.Context, request func(ctx context.Context, tr *transfer) error,
) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	tr := s.c.newTransfer(cancel)
	defer tr.end()
	err := request(ctx, tr)
	s.c.metrics.bytes.Add(float64(tr.got.Load()))
	s.to.Host.Received(tr.got.Load())
	// If the transfer watch cancelled the request, its cause explains the error of the connection.
	cause := context.Cause(ctx)
	switch {
	case err == nil:
	case errors.Is(cause, ErrSilent):
		err = fmt.Errorf("%w within %s", ErrSilent, tr.idle)
	case hosts.TimedOut(ctx, err):
		err = fmt.Errorf("no answer within %s: %w", tr.idle, err)
	case errors.Is(cause, ErrSlow), errors.Is(cause, ErrTimeout), errors.Is(cause, ErrCrowded):
		err = fmt.Errorf("%w after %d bytes", cause, tr.got.Load())
	}
	return err
}

// transfer sends a query whose answer is a CAR, and reads it.
func (s *session) transfer(
	ctx context.Context, tr *transfer, method, query string, o repo.CAROptions,
) (*repo.CAR, error) {
	header := s.c.header
	if tr.zstd = s.c.decode.permits.take(1); tr.zstd {
		header = s.c.zipping
		defer s.c.decode.permits.give(1)
	}
	resp, err := s.ask(ctx, tr, method, query, header)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	s.sender = senderOf(resp)
	if resp.ContentLength > o.BytesMax {
		return nil, fmt.Errorf("CAR of %d bytes exceeds %d: %w: raise --repo-max to take it",
			resp.ContentLength, o.BytesMax, repo.ErrTooLarge)
	}
	body, err := s.c.decode.open(resp.Header.Get("Content-Encoding"), tr)
	if err != nil {
		return nil, err
	}
	defer body.close()
	car, err := repo.ReadCAR(body, s.within(o))
	return car, readError(err, resp.Header)
}

// within has the reading of a CAR take its memory from the budgets of all copies.
func (s *session) within(o repo.CAROptions) repo.CAROptions {
	o.MemoryBytes, o.Spool, o.Chunks, o.Grow = s.c.opts.RepoMemoryBytes,
		s.c.openSpool, s.c.chunks, s.grow
	return o
}

// tooLarge adds to an error of a CAR that exceeds a limit how to raise the limit.
func tooLarge(err error) error {
	if errors.Is(err, repo.ErrTooLarge) {
		return fmt.Errorf("%w: raise --repo-max to take it", err)
	}
	return err
}

// readError classifies the failure to read the body of an answer with status 200.
func readError(err error, header http.Header) error {
	switch kind := hosts.ContentType(header); {
	case err == nil, errors.Is(err, ErrSpool), errors.Is(err, ErrIndex):
		return err
	case !errors.Is(err, repo.ErrInvalid):
		return fmt.Errorf("%w: %w", errBroken, err)
	case errors.Is(err, repo.ErrTooLarge):
		return tooLarge(err)
	case kind != carType && kind != "application/octet-stream":
		return fmt.Errorf("host answered 200 with %s: %w", kind, ErrNotCAR)
	}
	return err
}

// senderOf returns the host and port that sent an answer after redirects, "" if no DID document
// could name it.
func senderOf(resp *http.Response) string {
	origin, err := identity.ParseOrigin(resp.Request.URL.Scheme + "://" + resp.Request.URL.Host)
	if err != nil {
		return ""
	}
	return identity.HostOf(origin)
}

// ask sends a query about the repository to its host; query is what follows the DID in the URL. An
// answer with another status than 200 is an error.
func (s *session) ask(
	ctx context.Context, tr *transfer, method, query string, header http.Header,
) (*http.Response, error) {
	target := s.to.Ident.PDS + "/xrpc/" + method + "?did=" + url.QueryEscape(s.to.DID) + query
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, &hosts.ResolveError{Err: err}
	}
	req.Header = header
	resp, err := s.to.Host.Do(req)
	if err != nil {
		return nil, err
	}
	tr.body = resp.Body
	tr.begun.Store(true)
	tr.since.Store(0)
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, s.refused(resp, tr)
	}
	return resp, nil
}

// refused reads an answer with another status than 200.
func (s *session) refused(resp *http.Response, tr *transfer) error {
	body, err := s.c.decode.open(resp.Header.Get("Content-Encoding"), tr)
	if err != nil {
		return hosts.ReadAnswer(resp, http.NoBody, s.c.opts.Now())
	}
	defer body.close()
	return hosts.ReadAnswer(resp, body, s.c.opts.Now())
}

// grow asks for memory for the body. The first chunk is part of what every task may use.
func (s *session) grow(n int64) bool {
	if s.memory == 0 && n <= repo.ChunkBytes {
		s.memory = -1
		return true
	}
	if !s.c.memory.take(n) {
		return false
	}
	s.memory = max(s.memory, 0) + n
	return true
}

// growIndex asks for memory for the index. What the smaller one took stays counted: it is garbage
// that may not be collected yet.
func (s *session) growIndex(n int64) error {
	if !s.c.indexes.take(n) {
		return ErrIndex
	}
	s.index += n
	return nil
}

// forgetBody gives back what the last answer took.
func (s *session) forgetBody() {
	s.c.memory.give(max(s.memory, 0))
	s.memory = 0
}

func (s *session) forgetMemory() {
	s.c.memory.give(max(s.kept, 0))
	s.kept = 0
	s.c.indexes.give(s.index)
	s.index = 0
	s.forgetBody()
}

// answer returns the body of an answer. A body longer than bodyMax is cut, and then not valid JSON.
func (s *session) answer(
	ctx context.Context, tr *transfer, method, query string, bodyMax int64,
) ([]byte, error) {
	resp, err := s.ask(ctx, tr, method, query, s.c.asking)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := s.c.decode.open(resp.Header.Get("Content-Encoding"), tr)
	if err != nil {
		return nil, err
	}
	defer body.close()
	return io.ReadAll(io.LimitReader(body, bodyMax))
}
