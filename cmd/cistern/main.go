package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	// The roots of Mozilla, for systems without any, such as an image of the binary alone.
	_ "golang.org/x/crypto/x509roots/fallback"
)

func main() {
	os.Exit(exitCode(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr), os.Stderr))
}

// exitError is an error of a command whose exit code has a meaning of its own.
type exitError struct {
	code  int
	error // nil: the command has printed all there is to say
}

// Unwrap returns the error without its exit code.
func (e exitError) Unwrap() error { return e.error }

// exitUsage is the exit code of a wrong command line or variable, EX_USAGE of sysexits.h. It is not
// 2, which is the exit code of a Go process that panics: systemd restarts a daemon that panicked,
// and does not restart one whose options are wrong.
const exitUsage = 64

// usageError returns err with the exit code of a wrong command line, nil if err is nil.
func usageError(err error) error {
	if err == nil {
		return nil
	}
	return exitError{exitUsage, err}
}

// exitCode returns the exit code of a command that ended with err, and prints err.
func exitCode(err error, stderr io.Writer) int {
	if err == nil {
		return 0
	}
	code, told := 1, err
	if exit, ok := errors.AsType[exitError](err); ok {
		code = exit.code
		if exit.error == nil {
			told = nil
		}
	}
	if told != nil {
		fmt.Fprintln(stderr, "cistern:", told)
	}
	return code
}

// run is the whole program without the process around it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	a := &app{stdin: os.Stdin, stdout: stdout, stderr: stderr, environ: os.Environ(),
		program: os.Args[0], exit: os.Exit}
	return a.run(ctx, args)
}
