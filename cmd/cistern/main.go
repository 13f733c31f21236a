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

// exitCode returns the exit code of a command that ended with err, and prints err.
func exitCode(err error, stderr io.Writer) int {
	if err == nil {
		return 0
	}
	code, told := 1, err
	if exit, ok := errors.AsType[exitError](err); ok {
		code, told = exit.code, exit.error
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
