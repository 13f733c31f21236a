package hosts

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"time"

	"cistern/backfill/pace"
	"cistern/store"
)

var (
	// ErrBanned means that the operator has banned the host.
	ErrBanned = errors.New("host is banned")
	// ErrRedirect means that the host redirected a request to an address that is not allowed.
	ErrRedirect = errors.New("redirect refused")
	// ErrMalformed means that an answer does not have the requested form.
	ErrMalformed = errors.New("malformed answer")
	// ErrTooLong means that an answer is longer than any valid one.
	ErrTooLong = errors.New("answer is too long")
)

// AnswerError is an answer with a status other than 200.
type AnswerError struct {
	Code    int
	Name    string        // the XRPC error, "" if the body is not an XRPC error
	Message string        // bounded by errorBodyMax, shortened for the row
	Wait    time.Duration // the pause that the host asks for, 0 if it names none
	Quota   bool          // the answer names the spent quota, and the host's limiter enforces the wait
}

func (e *AnswerError) Error() string {
	if e.Name == "" {
		return fmt.Sprintf("host answered %d", e.Code)
	}
	return fmt.Sprintf("host answered %d %s: %s", e.Code, e.Name, e.Message)
}

// Delay returns how long the host must not be asked: the pause that it asks for, or a minute if it
// asks for fewer requests without naming a pause.
func (e *AnswerError) Delay() time.Duration {
	if e.Code == http.StatusTooManyRequests {
		return cmp.Or(e.Wait, refusedPause)
	}
	return e.Wait
}

// Outcome returns what the answer shows about the host.
func (e *AnswerError) Outcome() pace.Outcome {
	switch {
	case e.Code == http.StatusTooManyRequests && e.Quota:
		return pace.Outcome{} // only one of the host's quotas is spent
	case e.Code == http.StatusTooManyRequests:
		return pace.Outcome{Park: e.Delay()}
	case e.Code == http.StatusInternalServerError:
		return pace.Outcome{Fault: pace.SoftFault, Park: e.Wait}
	case e.Code > http.StatusInternalServerError:
		return pace.Outcome{Fault: pace.HardFault, Park: e.Wait}
	}
	return pace.Outcome{Answered: true}
}

// BusyError means that a host must not be asked before some time.
type BusyError struct {
	Until   time.Time
	Queries bool // but it may be asked for a repository
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("host is not to be asked before %s", e.Until.UTC().Format(time.RFC3339))
}

// ResolveError is a failure to find the host of a DID. It counts against no host.
type ResolveError struct{ Err error }

func (e *ResolveError) Error() string { return e.Err.Error() }

// Unwrap returns the failure.
func (e *ResolveError) Unwrap() error { return e.Err }

// StoreError is a failure of the store: the process must stop.
type StoreError struct{ Err error }

func (e *StoreError) Error() string { return e.Err.Error() }

// Unwrap returns the failure.
func (e *StoreError) Unwrap() error { return e.Err }

// OfStore marks an error of the store as a StoreError. ErrStale stays unmarked: it reports that the
// row has changed, not a failure.
func OfStore(err error) error {
	if err == nil || errors.Is(err, store.ErrStale) {
		return err
	}
	return &StoreError{err}
}

// IsOfStore reports whether an error is a failure of the store.
func IsOfStore(err error) bool {
	var failure *StoreError
	return errors.As(err, &failure)
}

// QueriesSpent reports whether a query failed because the host's quota of queries is spent. The
// host may count fetches of repositories in a different quota.
func QueriesSpent(err error) bool {
	var busy *BusyError
	var answer *AnswerError
	return errors.As(err, &busy) && busy.Queries || errors.As(err, &answer) && answer.Quota
}
