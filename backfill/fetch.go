package backfill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"cistern/backfill/hosts"
	"cistern/backfill/pace"
	"cistern/ingest/identity"
	"cistern/ingest/repo"
)

// carType is the content type of a CAR.
const carType = "application/vnd.ipld.car"

func queryHeader(userAgent, accept, encodings string) http.Header {
	return http.Header{
		"Accept":          {accept},
		"Accept-Encoding": {encodings},
		"User-Agent":      {userAgent},
	}
}

// transfer watches one body: enough must arrive in time. Its one timer looks at it now and then,
// and counts only the time that we wait for the host, not what we take ourselves.
type transfer struct {
	body   io.Reader
	cancel context.CancelCauseFunc
	timer  *time.Timer
	idle   time.Duration

	got    atomic.Int64 // bytes, before decompression
	begun  atomic.Bool  // the headers have arrived
	zstd   bool         // holds a permit for a zstd body
	waited atomic.Int64 // nanoseconds spent in reads that have ended
	since  atomic.Int64 // when the read under way began, 0 for none
	ended  atomic.Bool
	long   atomic.Int32 // longNot, longHeld or longOver

	crowded func() bool // others wait for permits, and none is free
	places  *budget     // for long transfers

	// owned by the timer:
	left       time.Duration // until the end of FetchTimeout
	leftLong   time.Duration // what is left when the transfer begins to be a long one
	gotSeen    int64         // got and waited when it looked last
	waitedSeen int64
}

// Whether a transfer holds one of the places for long transfers.
const (
	longNot int32 = iota
	longHeld
	longOver // the transfer has ended
)

func (r *Runner) newTransfer(cancel context.CancelCauseFunc) *transfer {
	tr := &transfer{cancel: cancel, idle: r.opts.IdleTimeout, left: r.opts.FetchTimeout, leftLong: r.opts.FetchTimeout - longAfter,
		crowded: r.crowded, places: r.long}
	tr.since.Store(time.Now().UnixNano())         // for the headers
	tr.timer = time.AfterFunc(time.Hour, tr.look) // which reads tr.timer
	tr.timer.Reset(min(tr.idle, tr.left))
	return tr
}

// end stops the watch.
func (tr *transfer) end() {
	tr.ended.Store(true)
	tr.timer.Stop()
	if tr.long.Swap(longOver) == longHeld {
		tr.places.give(1)
	}
}

// mayStay reports whether the transfer is not long, or has a place among the long ones, or keeps no other from its permit.
func (tr *transfer) mayStay() bool {
	if tr.left > tr.leftLong || tr.long.Load() != longNot {
		return true
	}
	if !tr.places.take(1) {
		return !tr.crowded()
	}
	if !tr.long.CompareAndSwap(longNot, longHeld) { // it has ended meanwhile
		tr.places.give(1)
	}
	return true
}

func (tr *transfer) look() {
	if tr.ended.Load() {
		return
	}
	tr.left -= tr.idle
	got, waited := tr.got.Load(), tr.waited.Load()
	if since := tr.since.Load(); since != 0 {
		waited += time.Now().UnixNano() - since
	}
	switch {
	case tr.left <= 0:
		tr.cancel(errTimeout)
	case got-tr.gotSeen < progressBytes && waited-tr.waitedSeen > int64(tr.idle)/2 && !tr.begun.Load():
		tr.cancel(errSilent)
	case got-tr.gotSeen < progressBytes && waited-tr.waitedSeen > int64(tr.idle)/2:
		tr.cancel(errSlow)
	case !tr.mayStay():
		tr.cancel(errCrowded)
	default:
		tr.gotSeen, tr.waitedSeen = got, waited
		tr.timer.Reset(min(tr.idle, tr.left))
	}
}

// Read counts what arrives and how long it takes.
func (tr *transfer) Read(p []byte) (int, error) {
	begin := time.Now().UnixNano()
	tr.since.Store(begin)
	n, err := tr.body.Read(p)
	tr.since.Store(0)
	tr.waited.Add(time.Now().UnixNano() - begin)
	tr.got.Add(int64(n))
	return n, err
}

// records are those of a verified copy, in key order: a repo.CAR, or a repo.Partial.
type records interface {
	Blocks() int
	Bytes() int64
	Walk(data repo.CID, fn func(repo.Leaf) error) error
	Close() error
}

// fetch gets what is wanted of the repository from its host, and checks everything.
func (t *task) fetch(ctx context.Context) (records, error) {
	c, way, err := t.sparse(ctx)
	if c == nil && err == nil {
		c, err = t.fetchAll(ctx)
	}
	if err != nil {
		return nil, err
	}
	t.r.metrics.fetches.WithLabelValues(way).Inc()
	return c, nil
}

func (t *task) fetchAll(ctx context.Context) (records, error) {
	car, err := t.whole(ctx)
	if err != nil {
		return nil, err
	}
	if err := t.verify(ctx, car); err != nil {
		return nil, errors.Join(err, car.Close())
	}
	return car, nil
}

// whole gets the whole repository, every block hashed.
func (t *task) whole(ctx context.Context) (car *repo.CAR, err error) {
	err = t.watched(ctx, func(ctx context.Context, tr *transfer) error {
		car, err = t.transfer(ctx, tr, repoMethod, "", repo.CAROptions{
			BytesMax:  t.r.opts.CARBytesMax,
			BlocksMax: t.r.opts.CARBlocksMax,
			GrowIndex: t.growIndex,
		})
		return err
	})
	return car, err
}

// watched runs a request under the watch of a transfer.
func (t *task) watched(ctx context.Context, request func(ctx context.Context, tr *transfer) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	tr := t.r.newTransfer(cancel)
	defer tr.end()
	err := request(ctx, tr)
	t.r.metrics.bytes.Add(float64(tr.got.Load()))
	t.fetched(tr.got.Load(), 0)
	// What the watch said is the cause of whatever the connection said then.
	cause := context.Cause(ctx)
	switch {
	case err == nil:
	case errors.Is(cause, errSilent):
		err = fmt.Errorf("%w within %s", errSilent, tr.idle)
	case timedOut(ctx, err):
		err = fmt.Errorf("no answer within %s: %w", tr.idle, err)
	case errors.Is(cause, errSlow), errors.Is(cause, errTimeout), errors.Is(cause, errCrowded):
		err = fmt.Errorf("%w after %d bytes", cause, tr.got.Load())
	}
	return err
}

// timedOut reports whether the transport gave up waiting for an answer (ResponseHeaderTimeout),
// which has no error value of its own: not that the context ended, nor that the connection failed.
func timedOut(ctx context.Context, err error) bool {
	var timeout net.Error
	return ctx.Err() == nil && errors.As(err, &timeout) && timeout.Timeout() && !errors.As(err, new(*net.OpError))
}

// transfer asks a question whose answer is a CAR.
func (t *task) transfer(ctx context.Context, tr *transfer, method, query string, o repo.CAROptions) (*repo.CAR, error) {
	header := t.r.header
	if tr.zstd = t.r.decode.permits.take(1); tr.zstd {
		header = t.r.zipping
		defer t.r.decode.permits.give(1)
	}
	resp, err := t.ask(ctx, tr, method, query, header)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	t.sender = senderOf(resp)
	if resp.ContentLength > o.BytesMax {
		return nil, fmt.Errorf("CAR of %d bytes exceeds %d: %w: raise --repo-max to fetch it", resp.ContentLength, o.BytesMax, repo.ErrTooLarge)
	}
	body, err := t.r.decode.open(resp.Header.Get("Content-Encoding"), tr)
	if err != nil {
		return nil, err
	}
	defer body.close()
	o.MemoryBytes, o.Spool, o.Chunks, o.Grow = t.r.opts.RepoMemoryBytes, t.r.openSpool, t.r.chunks, t.grow
	car, err := repo.ReadCAR(body, o)
	return car, readError(err, resp.Header)
}

// readError classifies the failure to read the body of an answer with status 200.
func readError(err error, header http.Header) error {
	switch kind := contentType(header); {
	case err == nil, errors.Is(err, errSpool), errors.Is(err, errIndex):
		return err
	case !errors.Is(err, repo.ErrInvalid):
		return fmt.Errorf("%w: %w", errBroken, err)
	case errors.Is(err, repo.ErrTooLarge):
		return fmt.Errorf("%w: raise --repo-max to fetch it", err)
	case kind != carType && kind != "application/octet-stream":
		return fmt.Errorf("host answered 200 with %s: %w", kind, errNotCAR)
	}
	return err
}

// contentType returns the content type of an answer without parameters, or words for a missing one.
func contentType(h http.Header) string {
	kind, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil {
		return "no content type"
	}
	return clean(kind)
}

// senderOf is the host and port that sent an answer, redirects followed; "" for none that a document could name.
func senderOf(resp *http.Response) string {
	origin, err := identity.ParseOrigin(resp.Request.URL.Scheme + "://" + resp.Request.URL.Host)
	if err != nil {
		return ""
	}
	return identity.HostOf(origin)
}

// ask sends a query about the repository to its host; query is what follows the DID in the URL. An answer that is none is
// an error.
func (t *task) ask(ctx context.Context, tr *transfer, method, query string, header http.Header) (*http.Response, error) {
	target := t.ident.PDS + "/xrpc/" + method + "?did=" + url.QueryEscape(t.it.did) + query
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, &resolveError{err}
	}
	req.Header = header
	if err := t.spend(ctx, kindOf(method)); err != nil {
		return nil, err
	}
	asked := t.r.opts.Now()
	resp, err := t.r.client.Do(req)
	if err != nil {
		return nil, err
	}
	if t.host != nil && resp.Request.URL.Host == req.URL.Host {
		t.r.heard(t.host, kindOf(method), t.permit, resp.Header, t.r.opts.Now().Sub(asked))
	}
	tr.body = resp.Body
	tr.begun.Store(true)
	tr.since.Store(0)
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, t.r.readAnswer(resp, tr)
	}
	return resp, nil
}

// grow asks for memory for the body. The first chunk is part of what every task may use.
func (t *task) grow(n int64) bool {
	if t.memory == 0 && n <= repo.ChunkBytes {
		t.memory = -1
		return true
	}
	if !t.r.memory.take(n) {
		return false
	}
	t.memory = max(t.memory, 0) + n
	return true
}

// growIndex asks for memory for the index. What the smaller one took stays counted: it is garbage
// that may not be collected yet.
func (t *task) growIndex(n int64) error {
	if !t.r.indexes.take(n) {
		return errIndex
	}
	t.index += n
	return nil
}

// forgetBody gives back what the last answer took.
func (t *task) forgetBody() {
	t.r.memory.give(max(t.memory, 0))
	t.memory = 0
}

func (t *task) forgetMemory() {
	t.r.memory.give(max(t.kept, 0))
	t.kept = 0
	t.r.indexes.give(t.index)
	t.index = 0
	t.forgetBody()
}

// readAnswer reads an answer that is not what was asked for.
func (r *Runner) readAnswer(resp *http.Response, tr *transfer) error {
	now := r.opts.Now()
	e := &hosts.AnswerError{Code: resp.StatusCode, Wait: askedWait(resp.Header, now)}
	if resp.StatusCode == http.StatusTooManyRequests && resp.Request.Response == nil { // not redirected: heard has noted it
		q := pace.ParseQuota(resp.Header, now)
		e.Quota = q.Spent(now) && e.Wait <= q.Reset.Sub(now)+time.Second
	}
	body, err := r.decode.open(resp.Header.Get("Content-Encoding"), tr)
	if err != nil {
		return e
	}
	defer body.close()
	var said struct {
		Error   string `json:"error"`
		Message string `json:"message"`
	}
	b, err := io.ReadAll(io.LimitReader(body, errorBodyMax))
	if err == nil && json.Unmarshal(b, &said) == nil {
		e.Name, e.Message = clean(said.Error), clean(said.Message)
	}
	return e
}

// clean makes text from a host fit for rows and logs.
func clean(s string) string {
	const textMax = 120
	if len(s) > textMax {
		s = s[:textMax]
	}
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c == '\uFFFD' {
			return -1
		}
		return c
	}, s)
}

// answer is the body of what ask gets. One longer than bodyMax is cut, and no JSON then.
func (t *task) answer(ctx context.Context, tr *transfer, method, query string, bodyMax int64) ([]byte, error) {
	resp, err := t.ask(ctx, tr, method, query, t.r.asking)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := t.r.decode.open(resp.Header.Get("Content-Encoding"), tr)
	if err != nil {
		return nil, err
	}
	defer body.close()
	return io.ReadAll(io.LimitReader(body, bodyMax))
}
