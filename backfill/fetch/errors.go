package fetch

import (
	"errors"
	"io"
)

var (
	// ErrSlow: the host sends, but too little to be worth a permit.
	ErrSlow = errors.New("body arrives too slowly")
	// ErrSilent means that no answer began in time.
	ErrSilent = errors.New("no answer")
	// ErrNotCAR means an answer with status 200 whose content type is not that of a CAR.
	ErrNotCAR = errors.New("the answer is not a repository")
	// ErrTimeout: the transfer took longer than FetchTimeout.
	ErrTimeout = errors.New("fetch took too long")
	// ErrCrowded: the transfer was one of too many long ones while repositories waited for a
	// permit.
	ErrCrowded = errors.New("too many long transfers while other repositories wait")
	// errBroken: the connection ended before the body did.
	errBroken = errors.New("body broke off")
	// ErrSpool: a body could not be spooled; the local disk failed, not the host.
	ErrSpool = errors.New("spool")
	// ErrIndex: there are too many large repositories at a time.
	ErrIndex = errors.New("indexes of all CARs together exceed their limit")
)

// Broken reports whether a body ended too early.
func Broken(err error) bool {
	return errors.Is(err, errBroken) || errors.Is(err, io.ErrUnexpectedEOF)
}

// heldError is a failure to read what is held of a repository.
type heldError struct{ error }

func (e *heldError) Unwrap() error { return e.error }
