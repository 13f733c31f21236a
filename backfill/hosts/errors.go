package hosts

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrBanned means that the operator wants the host left alone.
	ErrBanned = errors.New("host is banned")
	// ErrRedirect means that the host redirected a request to where we do not go.
	ErrRedirect = errors.New("redirect refused")
)

// AnswerError is an answer with another status than 200.
type AnswerError struct {
	Code    int
	Name    string        // the XRPC error, "" if the body is not an XRPC error
	Message string        // bounded by errorBodyMax, shortened for the row
	Wait    time.Duration // how long the host asks us to wait, 0 if it does not say
	Quota   bool          // the answer names the spent quota, and the host's limiter enforces its wait
}

func (e *AnswerError) Error() string {
	if e.Name == "" {
		return fmt.Sprintf("host answered %d", e.Code)
	}
	return fmt.Sprintf("host answered %d %s: %s", e.Code, e.Name, e.Message)
}

// BusyError means that a host must not be asked before some time.
type BusyError struct {
	Until   time.Time
	Queries bool // but it may be asked for a repository
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("host is not to be asked before %s", e.Until.UTC().Format(time.RFC3339))
}

// ResolveError is a failure to find the host of a DID; no host is to blame.
type ResolveError struct{ Err error }

func (e *ResolveError) Error() string { return e.Err.Error() }

// Unwrap returns the failure.
func (e *ResolveError) Unwrap() error { return e.Err }

// QueriesSpent reports whether a query failed because the host's quota of queries is spent. The
// host may count whole repositories in another quota.
func QueriesSpent(err error) bool {
	var busy *BusyError
	var answer *AnswerError
	return errors.As(err, &busy) && busy.Queries || errors.As(err, &answer) && answer.Quota
}
