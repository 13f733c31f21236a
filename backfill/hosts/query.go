package hosts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"cistern/backfill/pace"
	"cistern/ingest/identity"
)

// Query waits until the host at a base URL may be asked, sends it a request that fetches no
// repository, and returns the JSON body, of at most bodyMax bytes. The answer must begin within the
// given time. The error is a BusyError if the host is parked or has spent a window, ErrBanned if it
// is banned, and an AnswerError if the status is not 200. Other errors are those of HostID,
// ErrMalformed, ErrTooLong and those of the connection.
func (t *Table) Query(ctx context.Context, base, method string, params url.Values, bodyMax int64,
	within time.Duration) ([]byte, error) {
	origin, _, err := identity.ParseBase(base)
	if err != nil {
		return nil, fmt.Errorf("host %w", err)
	}
	id, err := t.HostID(identity.HostOf(origin))
	if err != nil {
		return nil, err
	}
	p, err := t.admit(ctx, id)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	target := strings.TrimSuffix(base, "/") + "/xrpc/" + method + "?" + params.Encode()
	body, err := t.send(ctx, p, target, bodyMax, within)
	switch {
	case err == nil, errors.Is(err, ErrTooLong): // other requests to the host may succeed
		p.Note(pace.Outcome{Answered: true}, "")
	case ctx.Err() == nil: // a cancelled request shows nothing about the host
		p.Note(outcomeOf(err), failureOf(err))
	}
	return body, err
}

func (t *Table) send(ctx context.Context, p *Permit, target string, bodyMax int64,
	within time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", t.opts.UserAgent)
	late := time.AfterFunc(within, cancel)
	resp, err := p.Do(req)
	if inTime := late.Stop(); err != nil && (!inTime || TimedOut(ctx, err)) {
		return nil, fmt.Errorf("no answer within %s: %w", within, err)
	}
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, ReadAnswer(resp, resp.Body, t.opts.Now())
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, bodyMax+1))
	p.Received(int64(len(body)))
	if err != nil {
		return nil, err
	}
	if int64(len(body)) > bodyMax {
		return nil, fmt.Errorf("more than %d bytes: %w", bodyMax, ErrTooLong)
	}
	if kind := ContentType(resp.Header); kind != "application/json" && !json.Valid(body) {
		return nil, fmt.Errorf("host answered 200 with %s: %w", kind, ErrMalformed)
	}
	return body, nil
}

// outcomeOf returns what the failure of a query shows about its host.
func outcomeOf(err error) pace.Outcome {
	var answer *AnswerError
	switch {
	case errors.As(err, &answer):
		return answer.Outcome()
	case errors.Is(err, ErrRedirect), errors.Is(err, identity.ErrPrivateAddress):
		return pace.Outcome{}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return pace.Outcome{Fault: pace.SoftFault}
	}
	return pace.Outcome{Fault: pace.HardFault}
}

// failureOf returns the text that is shown as the host's last failure, "" if the host did not fail.
func failureOf(err error) string {
	var answer *AnswerError
	if o := outcomeOf(err); o.Fault != pace.NoFault || o.Park > 0 ||
		errors.As(err, &answer) && answer.Code == http.StatusTooManyRequests {
		return err.Error()
	}
	return ""
}
