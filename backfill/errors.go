package backfill

import (
	"errors"
	"io"

	"cistern/store"
)

var (
	// errSlow: the host sends, but too little to be worth a permit.
	errSlow = errors.New("body arrives too slowly")
	// errSilent means that no answer began in time.
	errSilent = errors.New("no answer")
	// errNotCAR means an answer with status 200 whose content type is not that of a CAR.
	errNotCAR = errors.New("the answer is not a repository")
	// errTimeout: the transfer took longer than FetchTimeout.
	errTimeout = errors.New("fetch took too long")
	// errCrowded: the transfer took long, as too many others did, and repositories waited for a permit.
	errCrowded = errors.New("too many long transfers while other repositories wait")
	// errBroken: the connection ended before the body did.
	errBroken = errors.New("body broke off")
	// errSpool: a body could not be spooled; our disk, not the host.
	errSpool = errors.New("spool")
	// errIndex: there are too many large repositories at a time.
	errIndex = errors.New("indexes of all CARs together exceed their limit")
)

// broken says whether a body ended too early, whoever noticed.
func broken(err error) bool {
	return errors.Is(err, errBroken) || errors.Is(err, io.ErrUnexpectedEOF)
}

// heldError is a failure to read what is held of a repository.
type heldError struct{ error }

func (e *heldError) Unwrap() error { return e.error }

// storeError is a failure of our own store: the process must stop.
type storeError struct{ error }

func (e *storeError) Unwrap() error { return e.error }

// ours marks an error of the store. ErrStale stays unmarked: it reports that the row has changed, not a
// failure.
func ours(err error) error {
	if err == nil || errors.Is(err, store.ErrStale) {
		return err
	}
	return &storeError{err}
}
