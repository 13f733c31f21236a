package identity

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrNotFound: the DID does not exist, or it was tombstoned.
	ErrNotFound = errors.New("DID not found")
	// ErrGone: the DID was tombstoned, which no other directory can contradict. It wraps
	// ErrNotFound.
	ErrGone = fmt.Errorf("tombstoned: %w", ErrNotFound)
	// ErrInvalid: the DID is malformed or of an unknown method, or its document is
	// unusable. Only a change of the document helps.
	ErrInvalid = errors.New("identity not usable")
	// ErrNoPDS: the document declares no PDS, or not as an http or https origin. It is an ErrInvalid.
	ErrNoPDS = fmt.Errorf("no PDS declared: %w", ErrInvalid)
	// ErrNoKey: the document declares no signing key, or an invalid one. It is an ErrInvalid.
	ErrNoKey = fmt.Errorf("no signing key declared: %w", ErrInvalid)
	// ErrNoLog: DIDs of this method have no history. It is an ErrInvalid.
	ErrNoLog = fmt.Errorf("no audit log: %w", ErrInvalid)
	// ErrPrivateAddress: a connection would have reached an address that is not public.
	ErrPrivateAddress = errors.New("address is not public")
	// ErrRateLimited: every directory asked us to wait. errors.As to *RateLimitError gives the
	// time.
	ErrRateLimited = errors.New("identity lookups are rate limited")
)

// RateLimitError is ErrRateLimited with a time. All directories answered 429.
type RateLimitError struct {
	// Until is when the first of them may be asked again.
	Until time.Time
}

func (e *RateLimitError) Error() string {
	return fmt.Sprintf("%v until %s", ErrRateLimited, e.Until.UTC().Format(time.RFC3339))
}

// Is makes errors.Is(err, ErrRateLimited) true.
func (e *RateLimitError) Is(target error) bool { return target == ErrRateLimited }
