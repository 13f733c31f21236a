package command

import (
	"errors"
	"fmt"
	"io"
)

// ExitError is an error of a command whose exit code has a meaning of its own.
type ExitError struct {
	Code int
	Err  error // nil: the command has printed all there is to say
}

// Error returns the text of the error, and names the exit code if there is no other text.
func (e ExitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Err.Error()
}

// Unwrap returns the error without its exit code, nil if there is no error.
func (e ExitError) Unwrap() error { return e.Err }

// ExitUsage is the exit code of a wrong command line or variable, EX_USAGE of sysexits.h. It is not
// 2, which is the exit code of a Go process that panics: systemd restarts a daemon that panicked,
// and does not restart one whose options are wrong.
const ExitUsage = 64

// UsageError returns err with the exit code of a wrong command line or variable, nil if err is nil.
func UsageError(err error) error {
	if err == nil {
		return nil
	}
	return ExitError{Code: ExitUsage, Err: err}
}

// ExitCode returns the exit code of a command that ended with err, which may be nil, and prints err
// behind the name of the program.
func ExitCode(err error, stderr io.Writer) int {
	if err == nil {
		return 0
	}
	code, told := 1, err
	if exit, ok := errors.AsType[ExitError](err); ok {
		code = exit.Code
		if exit.Err == nil {
			told = nil
		}
	}
	if told != nil {
		fmt.Fprintln(stderr, "cistern:", told)
	}
	return code
}

// ExitInterrupted is the exit code that shells expect of an interrupted process.
const ExitInterrupted = 130
