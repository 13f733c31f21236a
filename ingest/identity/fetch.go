package identity

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// fetch gets and parses the document of did over the network.
func (d *Directory) fetch(ctx context.Context, text string) (Identity, error) {
	did, err := parseDID(text)
	if err != nil {
		return Identity{}, err
	}
	start := d.opts.Now()
	ctx, cancel := d.limited(ctx)
	defer cancel()
	var body []byte
	method := did.Method()
	switch method {
	case "plc":
		body, err = d.fetchPLC(ctx, did, "", d.opts.BodyMax)
	case "web":
		body, err = d.fetchWeb(ctx, did)
	default:
		return Identity{}, fmt.Errorf("DID method %.40q: %w", method, ErrInvalid)
	}
	var ident Identity
	if err == nil {
		ident, err = parseDocument(did, body)
	}
	d.metrics.fetches.WithLabelValues(method, outcome(err)).Inc()
	d.metrics.seconds.Observe(d.opts.Now().Sub(start).Seconds())
	return ident, err
}

func outcome(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, ErrNotFound):
		return "not_found"
	case errors.Is(err, ErrInvalid):
		return "invalid"
	case errors.Is(err, ErrRateLimited):
		return "rate_limited"
	}
	return "error"
}

// fetchPLC asks the PLC directories in turn until one has the resource at a path below the DID: ""
// for the document. The answer is bounded in size.
func (d *Directory) fetchPLC(
	ctx context.Context, did syntax.DID, path string, limit int64,
) ([]byte, error) {
	if !validPLC(did.Identifier()) {
		return nil, fmt.Errorf("DID %.80q is not 24 base32 letters: %w", did, ErrInvalid)
	}
	bases, until := d.plc.order()
	var missing, failing error
	if !until.IsZero() {
		failing = &RateLimitError{Until: until}
	}
	for _, base := range bases {
		// Each directory gets a share of the lookup's time, so that a silent one leaves time for
		// the next.
		body, err := d.ask(ctx, d.share(len(bases)), base, did.String(), path, limit)
		switch {
		case err == nil:
			return body, nil
		case errors.Is(err, ErrGone) || ctx.Err() != nil:
			return nil, fmt.Errorf("resolve %s: %w", did, err)
		case errors.Is(err, ErrNotFound):
			missing = err
			continue
		}
		if failing == nil || errors.Is(failing, ErrRateLimited) {
			failing = err
		}
	}
	if failing == nil {
		failing = missing // invariant 2: all of them answered 404
	}
	if _, until := d.plc.order(); errors.Is(failing, ErrRateLimited) && !until.IsZero() {
		failing = &RateLimitError{Until: until}
	}
	return nil, fmt.Errorf("resolve %s: %w", did, failing)
}

// errNoTime is the cause that a lookup ended by Options.Timeout, and not by its caller.
var errNoTime = fmt.Errorf("the time of the lookup is over: %w", context.DeadlineExceeded)

// limited returns ctx with the time of one lookup.
func (d *Directory) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, d.opts.Timeout, errNoTime)
}

// share returns the time that a lookup gives to each of the directories that it asks.
func (d *Directory) share(directories int) time.Duration {
	return d.opts.Timeout / time.Duration(max(1, directories))
}

// ask gets the resource at a path below a DID from one PLC directory, and notes whether the
// directory gave an answer about the DID.
func (d *Directory) ask(
	ctx context.Context, within time.Duration, base, did, path string, limit int64,
) ([]byte, error) {
	body, err := d.get(ctx, within, base+"/"+did+path, limit)
	if page, ok := errors.AsType[*missingPage](err); ok {
		err = errors.New(page.page) // not ErrNotFound
	}
	switch later, limited := errors.AsType[*retryLater](err); {
	case err == nil && !bytes.Contains(body, []byte(did)):
		d.plc.failed(base, did, errors.New("HTTP 200 with JSON that is not about the DID"))
	case err == nil:
		d.plc.answered(base, did)
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrInvalid):
		d.plc.answered(base, "")
	case ctx.Err() != nil && !errors.Is(context.Cause(ctx), errNoTime):
		// The caller gave up, which says nothing about the directory.
	case limited:
		d.plc.park(base, did, later.wait, err)
	default:
		d.plc.failed(base, did, err)
	}
	return body, err
}

// validPLC checks the method-specific part of a did:plc.
func validPLC(id string) bool {
	return len(id) == 24 && strings.Trim(id, "abcdefghijklmnopqrstuvwxyz234567") == ""
}

// fetchWeb gets the document of a did:web from its host.
func (d *Directory) fetchWeb(ctx context.Context, did syntax.DID) ([]byte, error) {
	base, err := d.webBase(did.Identifier())
	if err != nil {
		return nil, fmt.Errorf("resolve %.200s: %w", did, err)
	}
	body, err := d.get(ctx, d.opts.Timeout, base+"/.well-known/did.json", d.opts.BodyMax)
	if foreign := (*notJSON)(nil); errors.As(err, &foreign) {
		err = fmt.Errorf("%w: %w", err, ErrInvalid) // no other host can have the document
	}
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", did, err)
	}
	return body, nil
}

// webBase returns the base URL of a did:web: atproto allows a bare host name, and in development
// localhost with a port (https://atproto.com/specs/did#blessed-did-methods).
func (d *Directory) webBase(id string) (string, error) {
	if host, port, _ := strings.Cut(id, "%3A"); d.opts.AllowPrivate && host == "localhost" {
		if port == "" {
			return "http://localhost", nil
		}
		if _, err := strconv.ParseUint(port, 10, 16); err == nil {
			return "http://localhost:" + port, nil
		}
	}
	host, err := syntax.ParseHandle(id)
	if err != nil || (!host.AllowedTLD() && !d.opts.AllowPrivate) {
		return "", fmt.Errorf("did:web host %.200q is not a public host name: %w", id, ErrInvalid)
	}
	return "https://" + host.Normalize().String(), nil
}

// retryLater is a 429 with the delay it asked for, 0 for none.
type retryLater struct {
	wait time.Duration
	host string
}

func (e *retryLater) Error() string        { return "HTTP 429 from " + e.host }
func (e *retryLater) Is(target error) bool { return target == ErrRateLimited }

// notJSON is an answer with status 200 that is not about the DID: a page of a proxy, or part of a
// document.
type notJSON struct{ host, contentType string }

func (e *notJSON) Error() string {
	return fmt.Sprintf("HTTP 200 from %s with content type %.80q is not JSON", e.host, e.contentType)
}

// missingPage is an answer with status 404 or 410 that is an HTML page: of a proxy, of a wrong path
// or of an abandoned domain. A did:web does not exist then, but a PLC directory answers in JSON.
type missingPage struct {
	error        // what the status means
	page  string // what is in its place
}

func (e *missingPage) Unwrap() error { return e.error }

// missing returns the error of an answer with status 404 or 410.
func missing(resp *http.Response, host string) error {
	err := ErrGone
	if resp.StatusCode == http.StatusNotFound {
		err = fmt.Errorf("HTTP 404 from %s: %w", host, ErrNotFound)
	}
	if isPage(resp) {
		return &missingPage{err, fmt.Sprintf("HTTP %d from %s is a page and not about the DID",
			resp.StatusCode, host)}
	}
	return err
}

// isPage reports whether an answer is an HTML page.
func isPage(resp *http.Response) bool {
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return media == "text/html"
}

// get fetches JSON, bounded in size and time. Errors state what came instead.
func (d *Directory) get(
	ctx context.Context, within time.Duration, url string, limit int64,
) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", d.opts.UserAgent)
	resp, err := d.client.Do(req)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("no answer from %s within %s: %w", req.URL.Host, within, err)
	}
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := readBody(resp.Body, limit)
	host := answered(req, resp)
	switch resp.StatusCode {
	case http.StatusOK:
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			return nil, fmt.Errorf("no complete answer from %s within %s: %w", host, within, err)
		case isPage(resp), err == nil && !json.Valid(body):
			return nil, &notJSON{host, resp.Header.Get("Content-Type")}
		}
		return body, err
	case http.StatusNotFound, http.StatusGone:
		return nil, missing(resp, host)
	case http.StatusTooManyRequests:
		return nil, &retryLater{retryAfter(resp.Header, d.opts.Now()), host}
	}
	return nil, fmt.Errorf("HTTP %d from %s", resp.StatusCode, host)
}

// answered names the host that answered, and the requested host if it redirected.
func answered(req *http.Request, resp *http.Response) string {
	if from, by := resp.Request.URL.Host, req.URL.Host; from != by {
		return fmt.Sprintf("%.255s, to which %.255s redirects", from, by)
	}
	return req.URL.Host
}

// readBody reads all of r, refusing more than limit bytes.
func readBody(r io.Reader, limit int64) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(body)) > limit {
		err = fmt.Errorf("document over %d bytes: %w", limit, ErrInvalid)
	}
	return body, err
}

// retryAfter reads the delay an answer asks for: Retry-After in seconds or as a date, or
// RateLimit-Reset in seconds or as a Unix time, unless requests remain until
// then. 0 means no delay.
func retryAfter(h http.Header, now time.Time) time.Duration {
	if v := h.Get("Retry-After"); v != "" {
		if s, err := strconv.ParseInt(v, 10, 32); err == nil {
			return time.Duration(s) * time.Second
		}
		if t, err := http.ParseTime(v); err == nil {
			return t.Sub(now)
		}
	}
	if left := h.Get("RateLimit-Remaining"); left != "" && left != "0" {
		return 0
	}
	if s, err := strconv.ParseInt(h.Get("RateLimit-Reset"), 10, 64); err == nil && s > 0 {
		if s > 1e9 { // a Unix time, as atproto servers send it
			return time.Unix(s, 0).Sub(now)
		}
		return time.Duration(s) * time.Second
	}
	return 0
}
