package maintain

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrUnknown: there is no operation of that name.
	ErrUnknown = errors.New("unknown operation")
	// ErrCancelled: the run or the request was cancelled.
	ErrCancelled = errors.New("cancelled")
	// ErrStopped: Run has ended. Requests that were saved are met after the next start.
	ErrStopped = errors.New("the coordinator has stopped")
	// ErrBusy: too many callers wait for the operation.
	ErrBusy = errors.New("too many callers wait")
)

// NeedError is the result of an operation that needed another one, which did not succeed.
type NeedError struct {
	Operation string // the operation whose result this is
	Needs     string // the operation that it needed first
	Err       error  // why that did not succeed
}

// Error names both operations.
func (e *NeedError) Error() string {
	return fmt.Sprintf("%s needs %s first: %v", e.Operation, e.Needs, e.Err)
}

// Unwrap returns why the needed operation did not succeed.
func (e *NeedError) Unwrap() error { return e.Err }

// needs is what an operation returns that needs another one first.
type needs struct{ name string }

func (n *needs) Error() string { return n.name + " is needed first" }

// Needs returns the error by which an operation says that the operation of a name must run first.
// The coordinator runs that one and then calls the operation again.
func Needs(name string) error { return &needs{name} }

// text returns the text of an error, of at most errorBytesMax bytes, and without what is not UTF-8:
// an error may quote what another machine sent.
func text(err error) string {
	if err == nil {
		return ""
	}
	s := err.Error()
	return strings.ToValidUTF8(s[:min(len(s), errorBytesMax)], "")
}
