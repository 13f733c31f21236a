package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"cistern/backfill/pace"
	"cistern/ingest/identity"
	"cistern/store"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// The classes of requests in metrics.
const (
	classOK       = "ok"
	classRedirect = "redirect"
	classRefused  = "refused" // 4xx
	classGone     = "gone"
	classSlow     = "slow_down"
	classFailed   = "failed" // any other status
	classNetwork  = "network"
)

// classes are all of them.
var classes = [...]string{classOK, classRedirect, classRefused, classGone, classSlow, classFailed,
	classNetwork}

// newClient returns a client for URLs that come from outside: it connects to public addresses only,
// unless private ones are allowed, which is checked with each connection. It follows no redirects.
func newClient(transport http.RoundTripper, allowPrivate bool) *http.Client {
	if transport == nil {
		transport = identity.NewTransport(identity.TransportOptions{AllowPrivate: allowPrivate,
			MaxIdleConnsPerHost: idleMax, ReadBufferBytes: 4 << 10, DisableCompression: true,
			ResponseHeaderTimeout: requestTimeout})
	}
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &http.Client{Transport: transport, CheckRedirect: stay}
}

// post makes a request, and says how it ended. cut means that ctx was cancelled before the answer.
func (r *Runner) post(
	ctx context.Context, to *store.Webhook, id string, body []byte,
) (o outcome, cut bool) {
	ctx, end := context.WithTimeout(ctx, requestTimeout)
	defer end()
	req, err := r.request(ctx, to, id, body, time.Now())
	if err != nil {
		return failure(classNetwork, err), false
	}
	resp, err := r.client.Do(req)
	if err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("no answer within %s", requestTimeout)
		}
		return failure(classNetwork, err), errors.Is(ctx.Err(), context.Canceled)
	}
	// The answer is of no use, but the connection may serve the next request.
	_, _ = io.CopyN(io.Discard, resp.Body, answerBytesMax)
	_ = resp.Body.Close()
	return judge(resp, time.Now()), false
}

// request returns the request with its signed headers.
func (r *Runner) request(
	ctx context.Context, to *store.Webhook, id string, body []byte, now time.Time,
) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.URL, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	signed, err := signature(to.Secrets, id, now, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", r.opts.UserAgent)
	req.Header.Set(standardwebhooks.HeaderWebhookID, id)
	req.Header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	req.Header.Set(standardwebhooks.HeaderWebhookSignature, signed)
	return req, nil
}

// judge returns what an answer says.
func judge(resp *http.Response, now time.Time) outcome {
	o := outcome{verdict: failed, class: classFailed, err: fmt.Sprintf("HTTP %d", resp.StatusCode)}
	switch code := resp.StatusCode; {
	case code >= 200 && code < 300:
		return outcome{verdict: succeeded, class: classOK}
	case code >= 300 && code < 400:
		o.class = classRedirect
		o.err += ": redirects are not followed"
	case code == http.StatusGone:
		o.verdict, o.class = gone, classGone
	case code == http.StatusTooManyRequests, code == http.StatusBadGateway,
		code == http.StatusServiceUnavailable, code == http.StatusGatewayTimeout:
		o.verdict, o.class = slowDown, classSlow
		o.after = pace.AskedWait(resp.Header, now)
	case code >= 400 && code < 500:
		o.class = classRefused
	}
	return o
}

// failure is a request without an answer. Its error has neither the URL, which may have a secret of
// the endpoint in it, nor what is not text.
func failure(class string, err error) outcome {
	var whole *url.Error
	if errors.As(err, &whole) {
		err = whole.Err
	}
	text := strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c == '\uFFFD' {
			return -1
		}
		return c
	}, err.Error())
	if len(text) > errorBytesMax {
		text = strings.ToValidUTF8(text[:errorBytesMax], "")
	}
	return outcome{verdict: failed, class: class, err: text}
}
