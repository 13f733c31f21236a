package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"cistern/store"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// Poster makes signed requests to URLs that come from outside. It connects to public addresses
// only, unless private ones are allowed, which is checked with each connection, and follows no
// redirects. It may be used by any goroutine.
type Poster struct {
	client *http.Client
	agent  string
}

// NewPoster returns a Poster that sends the header User-Agent. Its transport is transport, or a new
// one for nil.
func NewPoster(transport http.RoundTripper, allowPrivate bool, agent string) *Poster {
	return &Poster{client: newClient(transport, allowPrivate), agent: agent}
}

// Post makes one request, signed with each of the secrets by Standard Webhooks, and returns an
// error unless the answer is 2xx within requestTimeout. The error does not repeat the URL, which
// may have a secret of the endpoint in it.
func (p *Poster) Post(ctx context.Context, url string, secrets [][]byte, id string,
	body []byte) error {
	o, _ := p.post(ctx, &store.Webhook{URL: url, Secrets: secrets}, id, body)
	if o.verdict != succeeded {
		return errors.New(o.err)
	}
	return nil
}

// Close closes connections that are not in use.
func (p *Poster) Close() { p.client.CloseIdleConnections() }

// post makes a request, and says how it ended. cut means that ctx was cancelled before the answer.
func (p *Poster) post(
	ctx context.Context, to *store.Webhook, id string, body []byte,
) (o outcome, cut bool) {
	ctx, end := context.WithTimeout(ctx, requestTimeout)
	defer end()
	req, err := p.request(ctx, to, id, body, time.Now())
	if err != nil {
		return failure(classNetwork, err), false
	}
	resp, err := p.client.Do(req)
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
func (p *Poster) request(
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
	req.Header.Set("User-Agent", p.agent)
	req.Header.Set(standardwebhooks.HeaderWebhookID, id)
	req.Header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	req.Header.Set(standardwebhooks.HeaderWebhookSignature, signed)
	return req, nil
}
