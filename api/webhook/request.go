package webhook

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"cistern/backfill/pace"
	"cistern/ingest/identity"
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
